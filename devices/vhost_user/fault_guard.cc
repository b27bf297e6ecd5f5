// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/fault_guard.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "loop/check.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Of each disk a few regions and an inflight log.
constexpr size_t kSlots = 2048;

struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> start{0};  // 0: guards nothing.
  std::atomic<size_t> size_bytes{0};
  std::atomic<bool> faulted{false};
};

std::array<Slot, kSlots>& slots() {
  static std::array<Slot, kSlots> kTable;
  return kTable;
}

// Only what a signal handler may do.
void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Slot& slot : slots()) {
    const uintptr_t start = slot.start.load(std::memory_order_acquire);
    const size_t size_bytes = slot.size_bytes.load(std::memory_order_relaxed);
    if (start == 0 || address < start || address - start >= size_bytes) continue;
    void* const at = reinterpret_cast<void*>(start);
    if (::mmap(at, size_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != at)
      break;
    slot.faulted.store(true, std::memory_order_release);
    errno = saved_errno;
    return;
  }
  // Not ours: the same instruction faults again, this time to the end.
  ::signal(signal, SIG_DFL);
}

bool install_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigfillset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, nullptr) == 0;
}

}  // namespace

Result<FaultGuard> FaultGuard::create(std::span<std::byte> range) {
  static const bool kInstalled = install_handler();
  SKIFF_CHECK(kInstalled);
  for (size_t i = 0; i < kSlots; ++i) {
    Slot& slot = slots()[i];
    if (slot.taken.load(std::memory_order_relaxed) || slot.taken.exchange(true)) continue;
    slot.faulted.store(false, std::memory_order_relaxed);
    slot.size_bytes.store(range.size(), std::memory_order_relaxed);
    slot.start.store(reinterpret_cast<uintptr_t>(range.data()), std::memory_order_release);
    return FaultGuard(i);
  }
  return Error(ErrorKind::kExhausted, "Too many memory regions of front ends are mapped");
}

FaultGuard::FaultGuard(FaultGuard&& other) noexcept : slot_(std::exchange(other.slot_, kNone)) {}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

FaultGuard::~FaultGuard() {
  if (slot_ == kNone) return;
  Slot& slot = slots()[slot_];
  slot.start.store(0, std::memory_order_release);
  slot.taken.store(false, std::memory_order_release);
}

bool FaultGuard::has_faulted() const {
  return slot_ != kNone && slots()[slot_].faulted.load(std::memory_order_acquire);
}

}  // namespace skiff::devices
