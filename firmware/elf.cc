// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/elf.h"

#include <elf.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "firmware/placement.h"
#include "loop/check.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// A kernel has about five; the bound keeps a damaged file from costing time.
constexpr size_t kMaxProgramHeaders = 128;
constexpr size_t kMaxNotes = 1024;

// Xen public/elfnote.h: the physical address of a 32-bit entry point (PVH).
constexpr uint32_t kXenPhys32Entry = 18;

struct Elf32 {
  using Header = Elf32_Ehdr;
  using ProgramHeader = Elf32_Phdr;
};
struct Elf64 {
  using Header = Elf64_Ehdr;
  using ProgramHeader = Elf64_Phdr;
};

Error corrupt(std::string what) {
  return {ErrorKind::kCorrupt, "The kernel is a damaged ELF file: " + std::move(what)};
}

Result<void> take_note(std::span<const std::byte> name, std::span<const std::byte> content,
                       uint32_t type, ElfImage& image) {
  const auto is_by = [&](std::string_view owner) {
    return name.size() == owner.size() + 1 &&
           std::memcmp(name.data(), owner.data(), owner.size()) == 0;
  };
  if (is_by("Linux")) image.is_linux = true;
  if (!is_by("Xen") || type != kXenPhys32Entry) return {};
  if (const auto wide = read_record<uint64_t>(content, 0)) {
    image.pvh_entry = wide;
  } else if (const auto narrow = read_record<uint32_t>(content, 0)) {
    image.pvh_entry = *narrow;
  } else {
    return corrupt("its PVH note holds no address");
  }
  return {};
}

Result<void> parse_notes(std::span<const std::byte> notes, uint64_t alignment, ElfImage& image) {
  const uint64_t unit = alignment == 8 ? 8 : 4;
  uint64_t offset = 0;
  for (size_t count = 0; offset < notes.size() && count < kMaxNotes; ++count) {
    // The note header is the same in both classes.
    const auto header = read_record<Elf64_Nhdr>(notes, offset);
    if (!header) return corrupt("its notes end in the middle of one");
    // Both sizes have 32 bits and the offset is inside the file: these sums cannot wrap.
    const uint64_t name_at = offset + sizeof(*header);
    const uint64_t content_at = align_down(name_at + header->n_namesz + unit - 1, unit);
    const auto name = slice(notes, name_at, header->n_namesz);
    const auto content = slice(notes, content_at, header->n_descsz);
    if (!name || !content) return corrupt("a note goes past the end of the notes");
    SKIFF_RETURN_IF_ERROR(take_note(*name, *content, header->n_type, image));
    offset = align_down(content_at + header->n_descsz + unit - 1, unit);
  }
  return {};
}

template <typename ProgramHeader>
Result<void> take_program_header(std::span<const std::byte> file, const ProgramHeader& header,
                                 ElfImage& image) {
  if (header.p_type != PT_LOAD && header.p_type != PT_NOTE) return {};
  const auto bytes = slice(file, header.p_offset, header.p_filesz);
  if (!bytes)
    return corrupt("a segment of " + size_text(header.p_filesz) + " at offset " +
                   hex(header.p_offset) + " goes past the end of the file (" +
                   size_text(file.size()) + "): was it cut off?");
  if (header.p_type == PT_NOTE) return parse_notes(*bytes, header.p_align, image);
  if (header.p_filesz > header.p_memsz)
    return corrupt("a segment has more bytes in the file than in memory");
  if (header.p_memsz == 0) return {};
  image.segments.push_back(
      {.bytes = *bytes, .physical_address = header.p_paddr, .memory_bytes = header.p_memsz});
  return {};
}

template <typename Class>
Result<ElfImage> parse_class(std::span<const std::byte> file, bool is_64_bit) {
  using ProgramHeader = typename Class::ProgramHeader;
  const auto header = read_record<typename Class::Header>(file, 0);
  if (!header) return corrupt("it ends inside its header");
  const uint16_t machine = header->e_machine;
  if (machine != EM_X86_64 && machine != EM_386)
    return Error(
        ErrorKind::kUnsupported,
        "The kernel is an ELF file for " +
            (machine == EM_AARCH64 ? std::string("arm64") : "machine " + std::to_string(machine)) +
            ", not for x86: is it a kernel of another architecture?");
  if (header->e_type != ET_EXEC)
    return Error(ErrorKind::kUnsupported,
                 "The kernel is an ELF file of type " + std::to_string(header->e_type) +
                     ", not an executable with fixed addresses (ET_EXEC): a kernel module, shared "
                     "library or position-independent program cannot be booted");
  if (header->e_phnum == 0 || header->e_phnum > kMaxProgramHeaders)
    return corrupt("it has " + std::to_string(header->e_phnum) + " program headers, 1 to " +
                   std::to_string(kMaxProgramHeaders) + " are allowed");
  if (header->e_phentsize != sizeof(ProgramHeader))
    return corrupt("its program headers have " + std::to_string(header->e_phentsize) +
                   " bytes instead of " + std::to_string(sizeof(ProgramHeader)));

  ElfImage image{.is_64_bit = is_64_bit, .entry = header->e_entry};
  const auto table =
      slice(file, header->e_phoff, uint64_t{header->e_phnum} * sizeof(ProgramHeader));
  if (!table) return corrupt("its program headers go past the end of the file: was it cut off?");
  for (uint64_t offset = 0; offset < table->size(); offset += sizeof(ProgramHeader)) {
    const auto program_header = read_record<ProgramHeader>(*table, offset);
    SKIFF_CHECK(program_header);
    SKIFF_RETURN_IF_ERROR(take_program_header(file, *program_header, image));
  }
  if (image.segments.empty()) return corrupt("it has nothing to load");
  return image;
}

}  // namespace

bool is_elf(std::span<const std::byte> file) {
  return file.size() >= SELFMAG && std::memcmp(file.data(), ELFMAG, SELFMAG) == 0;
}

Result<ElfImage> parse_elf(std::span<const std::byte> file) {
  const auto ident = slice(file, 0, EI_NIDENT);
  if (!ident || !is_elf(file)) return corrupt("it ends inside its header");
  const auto elf_class = std::to_integer<int>((*ident)[EI_CLASS]);
  if (std::to_integer<int>((*ident)[EI_DATA]) != ELFDATA2LSB)
    return Error(ErrorKind::kUnsupported,
                 "The kernel is a big-endian ELF file, not for x86: is it a kernel of another "
                 "architecture?");
  switch (elf_class) {
    case ELFCLASS32:
      return parse_class<Elf32>(file, false);
    case ELFCLASS64:
      return parse_class<Elf64>(file, true);
    default:
      return corrupt("its class is " + std::to_string(elf_class) + ", not 1 or 2");
  }
}

Result<void> place_elf(const ElfImage& image, uint64_t entry, Placement& placement) {
  bool entry_is_inside = false;
  for (size_t i = 0; i < image.segments.size(); ++i) {
    const ElfSegment& segment = image.segments[i];
    const std::string name = "The kernel's segment " + std::to_string(i);
    const auto end = checked_add(segment.physical_address, segment.memory_bytes);
    if (!end || *end > kIdentityMapBytes)
      return Error(ErrorKind::kCorrupt, name + " at " + hex(segment.physical_address) + " with " +
                                            size_text(segment.memory_bytes) +
                                            " goes past 4 GiB, the end of what can be booted");
    auto into = placement.claim(name, {segment.physical_address}, segment.memory_bytes);
    if (!into) return into.error();
    const auto rest = std::ranges::copy(segment.bytes, into->begin()).out;
    std::fill(rest, into->end(), std::byte{0});
    entry_is_inside |= entry >= segment.physical_address && entry < *end;
  }
  if (!entry_is_inside)
    return Error(ErrorKind::kCorrupt, "The kernel's entry point " + hex(entry) +
                                          " is in none of its segments: it must be a physical "
                                          "address");
  return {};
}

}  // namespace skiff::firmware
