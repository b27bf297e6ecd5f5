// SPDX-License-Identifier: GPL-2.0-or-later
// FakeDoorbellHub: doorbells that a test rings as a guest's write would.
//
// Thread: any. Ownership: the test's; outlives its users.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "devices/core/doorbell.h"
#include "loop/check.h"
#include "loop/mutex.h"

namespace skiff::devices {

class FakeDoorbellHub final : public DoorbellHub {
 public:
  loop::Result<void> attach(const DoorbellAddress& where,
                            const loop::EventNotifier& notifier) override {
    if (refuses_) return loop::Error(loop::ErrorKind::kExhausted, "No doorbell left");
    const loop::MutexLock lock(mutex_);
    // Like KVM, which refuses two that one write could ring.
    for (const Doorbell& other : doorbells_)
      if (other.where.space == where.space && other.where.address == where.address &&
          (!other.where.value || !where.value || other.where.value == where.value))
        return loop::Error(loop::ErrorKind::kBusy, "There is a doorbell already");
    doorbells_.push_back({where, &notifier});
    return {};
  }

  void detach(const DoorbellAddress& where, const loop::EventNotifier& notifier) override {
    const loop::MutexLock lock(mutex_);
    const auto found = std::ranges::find_if(doorbells_, [&](const Doorbell& doorbell) {
      return doorbell.notifier == &notifier && doorbell.where.address == where.address &&
             doorbell.where.value == where.value;
    });
    SKIFF_CHECK(found != doorbells_.end());
    doorbells_.erase(found);
  }

  // A write of the guest; false when it is nobody's and would be an exit.
  bool ring(uint64_t address, uint32_t size_bytes, uint64_t value) const {
    const loop::MutexLock lock(mutex_);
    for (const Doorbell& doorbell : doorbells_) {
      const DoorbellAddress& where = doorbell.where;
      if (where.address != address || where.value.value_or(value) != value) continue;
      if (where.size_bytes != 0 && where.size_bytes != size_bytes) continue;
      doorbell.notifier->notify();
      return true;
    }
    return false;
  }

  size_t attached() const {
    const loop::MutexLock lock(mutex_);
    return doorbells_.size();
  }
  void refuse(bool refuse) { refuses_ = refuse; }  // From now on attach() fails.

 private:
  struct Doorbell {
    DoorbellAddress where;
    const loop::EventNotifier* notifier;
  };
  std::atomic<bool> refuses_{false};
  mutable loop::Mutex mutex_;
  std::vector<Doorbell> doorbells_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
