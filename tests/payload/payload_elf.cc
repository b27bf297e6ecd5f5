// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/payload/payload_elf.h"

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace skiff::payload {
namespace {

constexpr uint32_t kLoadAddress = 0x100000;
constexpr size_t kCodeOffset = 0x1000;
constexpr uint32_t kPvhEntryNote = 18;  // XEN_ELFNOTE_PHYS32_ENTRY.

struct PvhNote {
  Elf64_Nhdr header = {4, 4, kPvhEntryNote};
  char name[4] = {'X', 'e', 'n', '\0'};
  uint32_t entry = kLoadAddress;
};

template <typename T>
void put(std::vector<uint8_t>& file, size_t offset, const T& value) {
  std::memcpy(file.data() + offset, &value, sizeof(value));
}

}  // namespace

Code operator+(Code first, const Code& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Code out8(uint16_t port, uint8_t value) {
  return {0x66, 0xba,  static_cast<uint8_t>(port), static_cast<uint8_t>(port >> 8),  // mov dx, port
          0xb0, value,  // mov al, value
          0xee};        // out dx, al
}

Code out16(uint16_t port, uint16_t value) {
  return {
      0x66, 0xba, static_cast<uint8_t>(port),  static_cast<uint8_t>(port >> 8),   // mov dx, port
      0x66, 0xb8, static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),  // mov ax, value
      0x66, 0xef};                                                                // out dx, ax
}

Code halt() {
  return {0xf4,         // hlt
          0xeb, 0xfd};  // jmp to it
}

Code debug_exit(uint8_t value) { return out8(0xf4, value) + halt(); }

std::vector<uint8_t> multiboot_file(const Code& code) {
  constexpr uint32_t kMagic = 0x1badb002;
  constexpr uint32_t kHasAddressFields = 1 << 16;
  constexpr uint32_t kHeaderBytes = 32;
  const auto end = static_cast<uint32_t>(kLoadAddress + kHeaderBytes + code.size());
  const uint32_t header[kHeaderBytes / 4] = {
      kMagic,
      kHasAddressFields,  // Then: checksum, header, load, end of load, end of bss, entry.
      0u - kMagic - kHasAddressFields,
      kLoadAddress,
      kLoadAddress,
      end,
      end,
      kLoadAddress + kHeaderBytes};
  std::vector<uint8_t> file(kHeaderBytes);
  std::memcpy(file.data(), header, sizeof(header));
  file.insert(file.end(), code.begin(), code.end());
  return file;
}

std::vector<uint8_t> pvh_elf(const Code& code) {
  constexpr size_t kProgramHeaders = sizeof(Elf64_Ehdr);
  constexpr size_t kNote = kProgramHeaders + 2 * sizeof(Elf64_Phdr);
  std::vector<uint8_t> file(kCodeOffset + code.size());

  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_entry = kLoadAddress;
  header.e_phoff = kProgramHeaders;
  header.e_ehsize = sizeof(Elf64_Ehdr);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  put(file, 0, header);

  Elf64_Phdr load = {};
  load.p_type = PT_LOAD;
  load.p_flags = PF_R | PF_X;
  load.p_offset = kCodeOffset;
  load.p_vaddr = load.p_paddr = kLoadAddress;
  load.p_filesz = load.p_memsz = code.size();
  load.p_align = kCodeOffset;
  put(file, kProgramHeaders, load);

  Elf64_Phdr note = {};
  note.p_type = PT_NOTE;
  note.p_offset = kNote;
  note.p_filesz = note.p_memsz = sizeof(PvhNote);
  note.p_align = 4;
  put(file, kProgramHeaders + sizeof(Elf64_Phdr), note);
  put(file, kNote, PvhNote{});

  std::memcpy(file.data() + kCodeOffset, code.data(), code.size());
  return file;
}

}  // namespace skiff::payload
