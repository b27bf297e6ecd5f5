// SPDX-License-Identifier: GPL-2.0-or-later
// How `skiff run` ends, as its exit status. A guest's own status (isa-debug-exit, --exec) is passed
// on as it is.
//
// Thread: any; constants.
#pragma once

#include <cstdint>

namespace skiff::vmm {

inline constexpr int kExitPoweredOff = 0;
inline constexpr int kExitUsage = 120;  // Wrong words, or the machine could not be set up.
inline constexpr int kExitGuestCrashed =
    121;  // Triple fault, pvpanic, a guest of --exec that died.
inline constexpr int kExitKvmError =
    122;  // KVM gave up; registers and instruction bytes are printed.
inline constexpr int kExitStopped = 123;  // From outside: a signal, the control socket, --timeout.

// The status for `value` written to isa-debug-exit, by QEMU's formula.
inline constexpr int debug_exit_status(uint32_t value) {
  return static_cast<int>((value << 1) | 1) & 0xff;
}

}  // namespace skiff::vmm
