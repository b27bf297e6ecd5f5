// SPDX-License-Identifier: GPL-2.0-or-later
// What the boot protocols have in common: the CPU's first state, and the command line, initrd and
// modules in the guest's memory.
//
// Thread: one at a time. Ownership: borrows the Placement.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "firmware/boot.h"
#include "firmware/elf.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {

// Long mode with 4 GiB mapped one to one, or flat 32-bit protected mode without paging. Writes GDT
// and page tables; rip is still to be set.
loop::Result<BootState> enter_long_mode(Placement& placement);
loop::Result<BootState> enter_protected_mode(Placement& placement);

// The area of the command lines: NUL-terminated, one after another.
class CommandLines {
 public:
  static loop::Result<CommandLines> create(Placement& placement);
  // The address of the copy. kInvalidArgument, with the maximum, when it is longer than
  // `max_bytes` (without the NUL), when the area is full or when there is a NUL inside.
  loop::Result<uint64_t> add(std::string_view text, uint64_t max_bytes);

 private:
  explicit CommandLines(std::span<std::byte> area) : area_(area) {}
  std::span<std::byte> area_;
  uint64_t used_bytes_ = 0;
};

struct LoadedModule {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  uint64_t command_line = 0;
};

// Joins the parts of options.initrd below `end`; size 0 when there are none.
loop::Result<LoadedModule> load_initrd(const BootOptions& options, uint64_t end,
                                       Placement& placement);
// The initrd, if any, then options.modules, for the protocols that know modules.
loop::Result<std::vector<LoadedModule>> load_modules(const BootOptions& options,
                                                     CommandLines& command_lines,
                                                     Placement& placement);

// The loaders, one per protocol.
bool is_bzimage(std::span<const std::byte> file);
loop::Result<BootState> load_bzimage(std::span<const std::byte> file, const BootOptions& options,
                                     Placement& placement);
loop::Result<BootState> load_vmlinux(const ElfImage& image, const BootOptions& options,
                                     Placement& placement);
loop::Result<BootState> load_pvh(const ElfImage& image, const BootOptions& options,
                                 Placement& placement);

}  // namespace skiff::firmware
