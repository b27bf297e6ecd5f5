// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/perf/payload_elf.h"

#include <elf.h>

#include <cstddef>
#include <cstring>

namespace skiff::perf {
namespace {

constexpr uint64_t kLoadAddress = 0x100000;
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

std::vector<uint8_t> exiting_payload() {
  return {
      0x66, 0xba, 0xf4, 0x00,  // mov dx, 0xf4
      0x31, 0xc0,              // xor eax, eax
      0xee,                    // out dx, al
      0xf4,                    // hlt
      0xeb, 0xfd,              // jmp to the hlt
  };
}

std::vector<uint8_t> halting_payload() {
  return {
      0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
      0xb0, 0x21,              // mov al, '!'
      0xee,                    // out dx, al
      0xfa,                    // cli
      0xf4,                    // hlt
      0xeb, 0xfd,              // jmp to the hlt
  };
}

std::vector<uint8_t> pvh_elf(const std::vector<uint8_t>& code) {
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

}  // namespace skiff::perf
