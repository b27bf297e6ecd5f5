// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/multiboot.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "firmware/boot.h"
#include "firmware/bytes.h"
#include "firmware/elf.h"
#include "firmware/handover.h"
#include "firmware/layout.h"
#include "firmware/memory_map.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint32_t kHeaderMagic = 0x1badb002;
constexpr uint32_t kLoaderMagic = 0x2badb002;
constexpr uint64_t kSearchBytes = 8192;

// Header flags. Of the lower 16 a loader must refuse those that it does not know (3.1.2). The
// wish for a video mode is known and not fulfilled: the information structure says so.
constexpr uint32_t kKnownRequirements = 0x7;
constexpr uint32_t kRequirements = 0xffff;
constexpr uint32_t kAddressFields = 1U << 16;

// Information flags (3.3).
constexpr uint32_t kInfoMemory = 1U << 0;
constexpr uint32_t kInfoCommandLine = 1U << 2;
constexpr uint32_t kInfoModules = 1U << 3;
constexpr uint32_t kInfoMemoryMap = 1U << 6;
constexpr uint32_t kInfoLoaderName = 1U << 9;

struct AddressFields {
  uint32_t header;
  uint32_t load;
  uint32_t load_end;
  uint32_t bss_end;
  uint32_t entry;
};

struct Information {
  uint32_t flags = 0;
  uint32_t memory_lower_kib = 0;
  uint32_t memory_upper_kib = 0;
  uint32_t boot_device = 0;
  uint32_t command_line = 0;
  uint32_t module_count = 0;
  uint32_t module_list = 0;
  std::array<uint32_t, 4> symbols = {};
  uint32_t memory_map_bytes = 0;
  uint32_t memory_map = 0;
  std::array<uint32_t, 3> drives_and_configuration = {};
  uint32_t loader_name = 0;
  std::array<uint32_t, 13> apm_and_video = {};
};
static_assert(sizeof(Information) == 120);

struct ModuleEntry {
  uint32_t begin;
  uint32_t end;
  uint32_t command_line;
  uint32_t reserved;
};

struct [[gnu::packed]] MemoryMapEntry {
  uint32_t size_bytes;  // Of the rest of this entry.
  uint64_t base;
  uint64_t length_bytes;
  uint32_t type;
};
static_assert(sizeof(MemoryMapEntry) == 24);

Error corrupt(std::string what) {
  return {ErrorKind::kCorrupt, "The kernel has a damaged multiboot header: " + std::move(what)};
}

// 3.1.3 "The address fields of Multiboot header". Returns the entry point.
Result<uint64_t> place_by_address_fields(std::span<const std::byte> file,
                                         const MultibootHeader& header, Placement& placement) {
  const auto fields = read_record<AddressFields>(file, header.file_offset + 12);
  if (!fields) return corrupt("it ends inside its address fields: was it cut off?");
  const uint64_t load = fields->load;
  if (fields->header < load || fields->header - load > header.file_offset)
    return corrupt("its load address " + hex(load) + " and its own address " + hex(fields->header) +
                   " do not go together");
  const uint64_t file_offset = header.file_offset - (fields->header - load);
  uint64_t load_bytes = file.size() - file_offset;
  if (fields->load_end != 0) {
    if (fields->load_end <= load)
      return corrupt("its load end " + hex(fields->load_end) + " is not above its load address " +
                     hex(load));
    load_bytes = fields->load_end - load;
  }
  const auto bytes = slice(file, file_offset, load_bytes);
  if (!bytes)
    return corrupt("it loads " + size_text(load_bytes) + " from offset " + hex(file_offset) +
                   " of a file with " + size_text(file.size()) + ": was it cut off?");
  uint64_t memory_bytes = load_bytes;
  if (fields->bss_end != 0) {
    if (fields->bss_end < load || fields->bss_end - load < load_bytes)
      return corrupt("its bss end " + hex(fields->bss_end) + " is below its load end");
    memory_bytes = fields->bss_end - load;
  }
  auto into = placement.claim("The kernel", {load}, memory_bytes);
  if (!into) return into.error();
  std::ranges::fill(std::ranges::copy(*bytes, into->begin()).out, into->end(), std::byte{0});
  if (fields->entry < load || fields->entry - load >= memory_bytes)
    return corrupt("its entry point " + hex(fields->entry) + " is outside of what it loads");
  return uint64_t{fields->entry};
}

Result<uint64_t> place_kernel(std::span<const std::byte> file, Placement& placement) {
  const auto header = find_multiboot_header(file);
  if (!header)
    return Error(ErrorKind::kUnsupported,
                 "The kernel has no multiboot header in its first 8 KiB: is it a multiboot 1 "
                 "kernel?");
  if (const uint32_t unknown = header->flags & kRequirements & ~kKnownRequirements)
    return Error(ErrorKind::kUnsupported,
                 "The kernel's multiboot header requires what is not there: flags " + hex(unknown));
  if (header->has_address_fields()) return place_by_address_fields(file, *header, placement);
  if (!is_elf(file)) return corrupt("it has no address fields and the file is not ELF");
  const auto image = parse_elf(file);
  if (!image) return image.error();
  if (image->is_64_bit)
    return Error(
        ErrorKind::kUnsupported,
        "The kernel is a 64-bit ELF file with a multiboot header: multiboot 1 takes 32-bit "
        "files (objcopy -O elf32-i386 makes one)");
  SKIFF_RETURN_IF_ERROR(place_elf(*image, image->entry, placement));
  return image->entry;
}

std::string command_line_of(const BootOptions& options) {
  if (options.kernel_name.empty()) return options.command_line;
  if (options.command_line.empty()) return options.kernel_name;
  return options.kernel_name + " " + options.command_line;
}

// What lies at `address` without a gap, in KiB, as far as 32 bits go.
uint32_t ram_kib_at(const BootOptions& options, uint64_t address) {
  for (const E820Entry& entry : options.memory_map) {
    if (entry.type != E820Type::kRam || entry.base.value > address) continue;
    const uint64_t offset = address - entry.base.value;
    if (offset < entry.size_bytes)
      return static_cast<uint32_t>(
          std::min<uint64_t>((entry.size_bytes - offset) >> 10, UINT32_MAX));
  }
  return 0;
}

// Everything lies below 4 GiB, so that every address fits its 32-bit field.
uint32_t narrow(uint64_t address) { return static_cast<uint32_t>(address); }

Result<void> write_information(const BootOptions& options, Information info,
                               const std::vector<LoadedModule>& modules, Placement& placement) {
  std::vector<MemoryMapEntry> map;
  map.reserve(options.memory_map.size());
  for (const E820Entry& entry : options.memory_map)
    map.push_back({sizeof(MemoryMapEntry) - sizeof(uint32_t), entry.base.value, entry.size_bytes,
                   static_cast<uint32_t>(entry.type)});
  std::vector<ModuleEntry> list;
  list.reserve(modules.size());
  for (const LoadedModule& module : modules)
    list.push_back({narrow(module.address), narrow(module.address + module.size_bytes),
                    narrow(module.command_line), 0});

  const uint64_t map_bytes = map.size() * sizeof(MemoryMapEntry);
  const uint64_t list_bytes = list.size() * sizeof(ModuleEntry);
  if (sizeof(Information) + map_bytes + list_bytes > kBootInfoBytes)
    return Error(ErrorKind::kInvalidArgument,
                 std::to_string(modules.size()) + " modules and " + std::to_string(map.size()) +
                     " ranges of memory are too many for the multiboot information (" +
                     size_text(kBootInfoBytes) + ")");
  const devices::GuestAddress map_at = kBootInfoAddress + sizeof(Information);
  const devices::GuestAddress list_at = map_at + map_bytes;
  info.flags = kInfoMemory | kInfoCommandLine | kInfoModules | kInfoMemoryMap | kInfoLoaderName;
  info.memory_lower_kib = ram_kib_at(options, 0);
  info.memory_upper_kib = ram_kib_at(options, kHighMemoryAddress.value);
  info.module_count = narrow(list.size());
  info.module_list = narrow(list_at.value);
  info.memory_map_bytes = narrow(map_bytes);
  info.memory_map = narrow(map_at.value);
  SKIFF_RETURN_IF_ERROR(placement.put("the multiboot information", kBootInfoAddress,
                                      std::as_bytes(std::span(&info, 1))));
  if (!map.empty())
    SKIFF_RETURN_IF_ERROR(
        placement.put("the multiboot memory map", map_at, std::as_bytes(std::span(map))));
  if (!list.empty())
    SKIFF_RETURN_IF_ERROR(
        placement.put("the multiboot module list", list_at, std::as_bytes(std::span(list))));
  return {};
}

}  // namespace

bool MultibootHeader::has_address_fields() const { return (flags & kAddressFields) != 0; }

std::optional<MultibootHeader> find_multiboot_header(std::span<const std::byte> file) {
  const auto head = file.first(std::min<size_t>(file.size(), kSearchBytes));
  for (uint64_t offset = 0; offset < head.size(); offset += sizeof(uint32_t)) {
    const auto words = read_record<std::array<uint32_t, 3>>(head, offset);
    if (!words) break;
    const auto [magic, flags, checksum] = *words;
    if (magic == kHeaderMagic && magic + flags + checksum == 0)
      return MultibootHeader{.file_offset = offset, .flags = flags};
  }
  return std::nullopt;
}

Result<BootState> load_multiboot(std::span<const std::byte> file, const BootOptions& options,
                                 Placement& placement) {
  const auto entry = place_kernel(file, placement);
  if (!entry) return entry.error();
  auto command_lines = CommandLines::create(placement);
  if (!command_lines) return command_lines.error();
  const auto command_line = command_lines->add(command_line_of(options), kCommandLineBytes - 1);
  if (!command_line) return command_line.error();
  const auto loader_name = command_lines->add("skiff", kCommandLineBytes - 1);
  if (!loader_name) return loader_name.error();
  const auto modules = load_modules(options, *command_lines, placement);
  if (!modules) return modules.error();
  const Information info{.command_line = narrow(*command_line),
                         .loader_name = narrow(*loader_name)};
  SKIFF_RETURN_IF_ERROR(write_information(options, info, *modules, placement));

  auto state = enter_protected_mode(placement);
  if (!state) return state.error();
  state->rip = *entry;
  state->rax = kLoaderMagic;
  state->rbx = kBootInfoAddress.value;
  return *state;
}

}  // namespace skiff::firmware
