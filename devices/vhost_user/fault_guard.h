// SPDX-License-Identifier: GPL-2.0-or-later
// FaultGuard: keeps a peer that cuts a file short under our mapping of it from killing the process.
//
// Touching a page that is behind the end of its file raises SIGBUS. Within a guarded range the
// signal's handler puts anonymous zero pages in place of the whole range, for good: the access goes
// on, finds zeroes, and whatever it was for fails as it does for any other nonsense of the peer's.
// The kernel's own accesses get EFAULT without a signal.
//
// A fault is the process's, so the handler and its table are process-wide. Faults outside all
// ranges end the process as ever. Thread: any. Ownership: the mapping stays until the guard is
// gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "loop/result.h"

namespace skiff::devices {

class FaultGuard {
 public:
  FaultGuard() = default;
  // kExhausted when as many ranges are guarded as there is room for.
  static loop::Result<FaultGuard> create(std::span<std::byte> range);
  FaultGuard(FaultGuard&& other) noexcept;
  FaultGuard& operator=(FaultGuard&& other) noexcept;
  ~FaultGuard();

  // The peer's bytes are gone, zeroes stand in their place.
  bool has_faulted() const;

 private:
  explicit FaultGuard(size_t slot) : slot_(slot) {}
  static constexpr size_t kNone = SIZE_MAX;
  size_t slot_ = kNone;
};

}  // namespace skiff::devices
