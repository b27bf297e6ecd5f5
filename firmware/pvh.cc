// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdint>
#include <span>
#include <string>
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

// Xen public/arch-x86/hvm/start_info.h, version 1.
constexpr uint32_t kStartMagic = 0x336ec578;

struct StartInfo {
  uint32_t magic = kStartMagic;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t module_count = 0;
  uint64_t module_list = 0;
  uint64_t command_line = 0;
  uint64_t rsdp = 0;
  uint64_t memory_map = 0;
  uint32_t memory_map_entries = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
  uint64_t address;
  uint64_t size_bytes;
  uint64_t command_line;
  uint64_t reserved;
};
static_assert(sizeof(ModuleEntry) == 32);

struct MemoryMapEntry {
  uint64_t address;
  uint64_t size_bytes;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);

Result<void> write_start_info(const BootOptions& options, const std::vector<LoadedModule>& modules,
                              uint64_t command_line, Placement& placement) {
  std::vector<MemoryMapEntry> map;
  map.reserve(options.memory_map.size());
  for (const E820Entry& entry : options.memory_map)
    map.push_back({entry.base.value, entry.size_bytes, static_cast<uint32_t>(entry.type), 0});
  std::vector<ModuleEntry> list;
  list.reserve(modules.size());
  for (const LoadedModule& module : modules)
    list.push_back({module.address, module.size_bytes, module.command_line, 0});

  const uint64_t map_bytes = map.size() * sizeof(MemoryMapEntry);
  const uint64_t list_bytes = list.size() * sizeof(ModuleEntry);
  if (sizeof(StartInfo) + map_bytes + list_bytes > kBootInfoBytes)
    return Error(ErrorKind::kInvalidArgument,
                 std::to_string(modules.size()) + " modules and " + std::to_string(map.size()) +
                     " ranges of memory are too many for the start information (" +
                     size_text(kBootInfoBytes) + ")");
  const devices::GuestAddress map_at = kBootInfoAddress + sizeof(StartInfo);
  const devices::GuestAddress list_at = map_at + map_bytes;
  const StartInfo info{.module_count = static_cast<uint32_t>(list.size()),
                       .module_list = list.empty() ? 0 : list_at.value,
                       .command_line = command_line,
                       .rsdp = options.acpi_rsdp.value,
                       .memory_map = map_at.value,
                       .memory_map_entries = static_cast<uint32_t>(map.size())};
  SKIFF_RETURN_IF_ERROR(placement.put("the PVH start information", kBootInfoAddress,
                                      std::as_bytes(std::span(&info, 1))));
  if (!map.empty())
    SKIFF_RETURN_IF_ERROR(
        placement.put("the PVH memory map", map_at, std::as_bytes(std::span(map))));
  if (!list.empty())
    SKIFF_RETURN_IF_ERROR(
        placement.put("the PVH module list", list_at, std::as_bytes(std::span(list))));
  return {};
}

}  // namespace

Result<BootState> load_pvh(const ElfImage& image, const BootOptions& options,
                           Placement& placement) {
  if (!image.pvh_entry)
    return Error(ErrorKind::kUnsupported,
                 "The kernel has no PVH entry point (an ELF note by Xen of type 18): for Linux it "
                 "takes CONFIG_PVH");
  SKIFF_RETURN_IF_ERROR(place_elf(image, *image.pvh_entry, placement));
  auto command_lines = CommandLines::create(placement);
  if (!command_lines) return command_lines.error();
  const auto command_line = command_lines->add(options.command_line, kCommandLineBytes - 1);
  if (!command_line) return command_line.error();
  const auto modules = load_modules(options, *command_lines, placement);
  if (!modules) return modules.error();
  SKIFF_RETURN_IF_ERROR(write_start_info(options, *modules, *command_line, placement));

  auto state = enter_protected_mode(placement);
  if (!state) return state.error();
  state->rip = *image.pvh_entry;
  state->rbx = kBootInfoAddress.value;
  return *state;
}

}  // namespace skiff::firmware
