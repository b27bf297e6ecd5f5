// SPDX-License-Identifier: GPL-2.0-or-later
// MsiRouter: KVM's table from GSI numbers to interrupt pins and messages, and the MSI vectors that
// have an entry in it.
//
// KVM replaces the whole table at each change and waits for its readers. Changes that arrive while
// one replacement is under way share the next one. Thread: any. Ownership: the Vm's; borrows its
// descriptor; vectors borrow the router and go before it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "devices/core/msi.h"
#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::vmm {

class MsiRouter {
 public:
  MsiRouter(int vm_fd, uint32_t max_vectors) : vm_fd_(vm_fd), max_vectors_(max_vectors) {}

  // Tells KVM where the ISA and IOAPIC pins are; before the first vector.
  loop::Result<void> install_pins() { return commit_change(); }

  // kExhausted without a free GSI or descriptor.
  loop::Result<std::unique_ptr<devices::MsiVector>> create_vector();

 private:
  class Vector;

  loop::Result<void> route(uint32_t gsi, const devices::MsiMessage& message);
  void release(uint32_t gsi);
  loop::Result<void> commit_change();
  loop::Result<void> replace_table(const std::map<uint32_t, devices::MsiMessage>& routes) const;

  const int vm_fd_;
  const uint32_t max_vectors_;

  loop::Mutex mutex_;
  loop::ConditionVariable committed_;
  std::map<uint32_t, devices::MsiMessage> routes_ SKIFF_GUARDED_BY(mutex_);
  std::vector<bool> used_gsis_ SKIFF_GUARDED_BY(mutex_);  // By GSI - kFirstMsiGsi.
  bool committing_ SKIFF_GUARDED_BY(mutex_) = false;
  uint64_t wanted_version_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint64_t installed_version_ SKIFF_GUARDED_BY(mutex_) = 0;
};

}  // namespace skiff::vmm
