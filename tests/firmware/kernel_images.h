// SPDX-License-Identifier: GPL-2.0-or-later
// Builders of tiny valid kernel files; a test changes one thing and sees what is said about it.
//
// Thread: any. Ownership: values.
#pragma once

#include <asm/bootparam.h>
#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace skiff::firmware {

using Bytes = std::vector<std::byte>;

Bytes to_bytes(const std::string& text);

// 4 KiB of code at 1 MiB, entered at +0x200, that asks for 64 KiB.
Bytes make_bzimage(const std::function<void(setup_header&)>& change = {});

struct ElfSpec {
  bool is_64_bit = true;
  uint64_t entry = 0x100000;
  uint16_t machine = EM_X86_64;
  uint16_t type = ET_EXEC;
  bool has_linux_note = false;
  std::optional<uint64_t> pvh_entry;
  struct Segment {
    uint64_t address = 0x100000;
    Bytes content = Bytes(256, std::byte{0x90});
    uint64_t memory_bytes = 512;
  };
  std::vector<Segment> segments = {Segment{}};
};
Bytes make_elf(const ElfSpec& spec);

// A multiboot header without address fields, to be the content of a 32-bit ELF segment.
Bytes make_multiboot_header(uint32_t flags);

struct MultibootFields {
  uint32_t header = 0x100010;
  uint32_t load = 0x100000;
  uint32_t load_end = 0;
  uint32_t bss_end = 0x100800;
  uint32_t entry = 0x100040;
};
// A flat file of 256 bytes with the header at offset 16.
Bytes make_flat_multiboot(const MultibootFields& fields = {}, uint32_t flags = 1U << 16 | 0x3);

// A 32-bit ELF file that is a multiboot kernel.
Bytes make_elf_multiboot();

}  // namespace skiff::firmware
