// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/firmware/kernel_images.h"

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>

namespace skiff::firmware {
namespace {

template <typename T>
void put(Bytes& bytes, uint64_t offset, const T& value) {
  if (bytes.size() < offset + sizeof(T)) bytes.resize(offset + sizeof(T));
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

void append(Bytes& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

Bytes make_note(const std::string& owner, uint32_t type, std::span<const std::byte> content) {
  Bytes note;
  put(note, 0,
      Elf64_Nhdr{.n_namesz = static_cast<uint32_t>(owner.size() + 1),
                 .n_descsz = static_cast<uint32_t>(content.size()),
                 .n_type = type});
  append(note, std::as_bytes(std::span(owner)));
  note.resize((note.size() + 1 + 3) / 4 * 4);
  append(note, content);
  note.resize((note.size() + 3) / 4 * 4);
  return note;
}

Bytes make_notes(const ElfSpec& spec) {
  constexpr uint32_t kBuildSalt = 0x100;
  constexpr uint32_t kPhys32Entry = 18;
  Bytes notes;
  const uint32_t salt = 7;
  if (spec.has_linux_note)
    append(notes, make_note("Linux", kBuildSalt, std::as_bytes(std::span(&salt, 1))));
  if (spec.pvh_entry) {
    const auto entry = std::as_bytes(std::span(&*spec.pvh_entry, 1));
    append(notes, make_note("Xen", kPhys32Entry, entry.first(spec.is_64_bit ? 8 : 4)));
  }
  return notes;
}

template <typename Header, typename ProgramHeader>
Bytes make_class(const ElfSpec& spec, unsigned char elf_class) {
  const Bytes notes = make_notes(spec);
  const size_t count = spec.segments.size() + (notes.empty() ? 0 : 1);
  Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = spec.type;
  header.e_machine = spec.machine;
  header.e_version = EV_CURRENT;
  header.e_entry = static_cast<decltype(header.e_entry)>(spec.entry);
  header.e_phoff = sizeof(Header);
  header.e_ehsize = sizeof(Header);
  header.e_phentsize = sizeof(ProgramHeader);
  header.e_phnum = static_cast<uint16_t>(count);

  Bytes file;
  put(file, 0, header);
  file.resize(sizeof(Header) + count * sizeof(ProgramHeader));
  uint64_t header_at = sizeof(Header);
  const auto add = [&](uint32_t type, const ElfSpec::Segment& segment) {
    ProgramHeader program_header{};
    program_header.p_type = type;
    program_header.p_offset = static_cast<decltype(program_header.p_offset)>(file.size());
    program_header.p_paddr = static_cast<decltype(program_header.p_paddr)>(segment.address);
    program_header.p_filesz =
        static_cast<decltype(program_header.p_filesz)>(segment.content.size());
    program_header.p_memsz = static_cast<decltype(program_header.p_memsz)>(segment.memory_bytes);
    program_header.p_align = 4;
    put(file, header_at, program_header);
    header_at += sizeof(ProgramHeader);
    append(file, segment.content);
  };
  for (const ElfSpec::Segment& segment : spec.segments) add(PT_LOAD, segment);
  if (!notes.empty()) add(PT_NOTE, {.address = 0, .content = notes, .memory_bytes = notes.size()});
  return file;
}

}  // namespace

Bytes to_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes make_bzimage(const std::function<void(setup_header&)>& change) {
  constexpr size_t kCodeBytes = 4096;
  setup_header header{};
  header.setup_sects = 1;
  header.syssize = kCodeBytes / 16;
  header.boot_flag = 0xaa55;
  header.jump = 0x6aeb;
  header.header = 0x53726448;
  header.version = 0x020f;
  header.loadflags = LOADED_HIGH;
  header.initrd_addr_max = 0x7fffffff;
  header.kernel_alignment = 0x1000;
  header.relocatable_kernel = 1;
  header.xloadflags = XLF_KERNEL_64;
  header.cmdline_size = 2047;
  header.payload_offset = 0x300;
  header.payload_length = 0x400;
  header.pref_address = 0x100000;
  header.init_size = 0x10000;
  if (change) change(header);
  Bytes file(1024);
  put(file, 0x1f1, header);
  file.resize(1024);
  file.resize(1024 + kCodeBytes, std::byte{0x90});
  return file;
}

Bytes make_elf(const ElfSpec& spec) {
  return spec.is_64_bit ? make_class<Elf64_Ehdr, Elf64_Phdr>(spec, ELFCLASS64)
                        : make_class<Elf32_Ehdr, Elf32_Phdr>(spec, ELFCLASS32);
}

Bytes make_multiboot_header(uint32_t flags) {
  constexpr uint32_t kMagic = 0x1badb002;
  Bytes bytes;
  put(bytes, 0, kMagic);
  put(bytes, 4, flags);
  put(bytes, 8, 0U - kMagic - flags);
  return bytes;
}

Bytes make_flat_multiboot(const MultibootFields& fields, uint32_t flags) {
  Bytes file(16);
  append(file, make_multiboot_header(flags));
  put(file, 28, fields);
  file.resize(256, std::byte{0x90});
  return file;
}

Bytes make_elf_multiboot() {
  Bytes content = make_multiboot_header(0x3);
  content.resize(256, std::byte{0x90});
  return make_elf({.is_64_bit = false,
                   .entry = 0x100010,
                   .machine = EM_386,
                   .segments = {{.address = 0x100000, .content = content, .memory_bytes = 4096}}});
}

}  // namespace skiff::firmware
