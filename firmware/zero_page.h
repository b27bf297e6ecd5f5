// SPDX-License-Identifier: GPL-2.0-or-later
// The end of the 64-bit Linux boot protocol that bzImage and vmlinux share: boot_params, command
// line, initrd, entry.
//
// Thread: one at a time. Ownership: borrows the Placement.
#pragma once

#include <asm/bootparam.h>

#include <cstdint>

#include "firmware/boot.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {

struct Linux64Entry {
  uint64_t address = 0;
  uint64_t command_line_max_bytes = 0;  // Without the NUL.
  uint64_t initrd_end = 0;              // The initrd must end at or below this.
};

// `header` is the kernel's own, or a made-up one for a vmlinux. Call after the kernel is placed:
// the initrd goes where there is room.
loop::Result<BootState> enter_linux64(setup_header header, const Linux64Entry& entry,
                                      const BootOptions& options, Placement& placement);

}  // namespace skiff::firmware
