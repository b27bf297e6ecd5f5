// SPDX-License-Identifier: GPL-2.0-or-later
// Loading a kernel: puts it, what it needs to know and its initrd into the guest's memory, and says
// how the boot vCPU must start.
//
// Four kinds of file are understood (Linux Documentation/arch/x86/boot.rst; Xen
// docs/misc/pvh.pandoc; Multiboot Specification 0.6.96):
//
//   bzImage            64-bit boot protocol, entered at +0x200 in long mode
//   ELF64 vmlinux      64-bit boot protocol, entered at e_entry in long mode
//   ELF, PVH note      entered at the note's address in 32-bit protected mode
//   multiboot 1        32-bit ELF, or any file with address fields; 32-bit protected mode
//
// Protocol::kAuto decides by what the file says about itself. A Linux vmlinux (it has notes by
// "Linux") is entered by the 64-bit protocol even when it carries a PVH note as well, as Debian's
// does: only boot_params can pass a screen_info, so a framebuffer needs it, and the kernel need not
// find its way up from 32 bits. Any other ELF file with a PVH note is entered by that note: nothing
// says that it knows boot_params. A 32-bit ELF file with a multiboot header is entered by that.
//
// Nothing in the file is trusted: every range is checked against the file and the guest's memory,
// and whatever would overlap is refused.
//
// Thread: one at a time; no vCPU may run. Ownership: the file, the initrd and the modules are
// borrowed until load_kernel() returns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/memory_map.h"
#include "loop/result.h"

namespace skiff::firmware {

enum class Protocol { kAuto, kLinux64, kPvh, kMultiboot };

struct BootModule {
  std::string command_line;  // Multiboot: by custom a path name, then arguments.
  std::span<const std::byte> bytes;
};

struct BootOptions {
  Protocol protocol = Protocol::kAuto;
  // Multiboot only: put before the command line as its first word, when not empty.
  std::string kernel_name;
  std::string command_line;
  // The parts of the initrd (each a cpio archive, compressed or not); the guest sees one initrd.
  // For PVH and multiboot it is the first module.
  std::vector<std::span<const std::byte>> initrd;
  std::vector<BootModule> modules;       // PVH and multiboot only.
  std::vector<E820Entry> memory_map;     // From make_memory_map().
  devices::GuestAddress acpi_rsdp = {};  // From write_acpi_tables(); 0: none.
};

// A segment register as the boot vCPU needs it; the fields are those of a descriptor.
struct BootSegment {
  uint16_t selector = 0;
  uint32_t base = 0;
  uint32_t limit_bytes = 0;  // The last byte that is inside.
  uint8_t type = 0;
  bool is_code_or_data = true;  // The S bit; false for a TSS.
  bool is_long_mode = false;    // The L bit.
  bool is_32_bit = false;       // The D/B bit.
  bool is_in_pages = false;     // The G bit.
};

// Registers that are not named here are zero.
struct BootState {
  enum class Mode { kLong64, kProtected32 };
  Mode mode = Mode::kLong64;

  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  uint64_t rflags = 0x2;

  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;

  devices::GuestAddress gdt;
  uint16_t gdt_limit_bytes = 0;
  BootSegment code;
  BootSegment data;  // DS, ES, FS, GS and SS.
  BootSegment task;  // TR.
};

// kCorrupt when the file breaks its own rules, kUnsupported when it is of a kind that cannot be
// booted here, kInvalidArgument when what the user asked for does not fit: too little memory, a
// command line that is too long, modules for a kernel that takes none. After an error the guest's
// memory may hold some of the parts.
loop::Result<BootState> load_kernel(std::span<const std::byte> kernel_file,
                                    const BootOptions& options, const devices::GuestMemory& memory);

}  // namespace skiff::firmware
