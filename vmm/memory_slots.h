// SPDX-License-Identifier: GPL-2.0-or-later
// MemorySlots: the guest's RAM: allocated, registered with KVM, and offered to the devices as
// GuestMemory.
//
// Thread: created and destroyed on the main thread while no vCPU runs; memory() from any.
// Ownership: owns the mappings; the Vm outlives it, the vCPUs go before it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/core/guest_memory.h"
#include "loop/memory_lock.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/vm.h"

namespace skiff::vmm {

struct MemoryOptions {
  uint64_t size_bytes = 0;
  bool prealloc = false;   // Touch every page before the guest starts.
  bool lock = false;       // mlock: never swapped. Implies prealloc.
  bool huge_pages = true;  // Ask for transparent huge pages.
  bool shared = false;     // In a memfd, so that other processes may map it too.
};

class MemorySlots {
 public:
  // kInvalidArgument: not a multiple of 4 KiB, below 1 MiB, or beyond the guest's physical
  // addresses. kExhausted: more than the host has, or (lock) than it may lock.
  static loop::Result<std::unique_ptr<MemorySlots>> create(Vm& vm, const MemoryOptions& options);
  ~MemorySlots();
  MemorySlots(const MemorySlots&) = delete;
  MemorySlots& operator=(const MemorySlots&) = delete;

  const devices::GuestMemory& memory() const { return memory_; }
  // With `shared`: where the memory is in its file; else empty.
  std::vector<devices::SharedRegion> shared_regions() const;

 private:
  explicit MemorySlots(Vm& vm) : vm_(vm) {}
  loop::Result<void> add(uint64_t guest_base, uint64_t size_bytes, const MemoryOptions& options);

  Vm& vm_;
  loop::UniqueFd file_;  // With `shared`: of all regions, one after the other.
  uint64_t file_bytes_ = 0;
  std::vector<devices::GuestRegion> regions_;
  std::vector<loop::MemoryLock> locks_;
  devices::GuestMemory memory_;
};

}  // namespace skiff::vmm
