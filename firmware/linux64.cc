// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <string>

#include "firmware/boot.h"
#include "firmware/elf.h"
#include "firmware/handover.h"
#include "firmware/layout.h"
#include "firmware/memory_map.h"
#include "firmware/placement.h"
#include "firmware/zero_page.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Linux Documentation/arch/x86/boot.rst names every field and value below.
static_assert(offsetof(boot_params, hdr) == 0x1f1 && sizeof(boot_params) == kPageBytes);

constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint16_t kProtocolVersion = 0x020f;
constexpr uint8_t kUnknownLoader = 0xff;

// COMMAND_LINE_SIZE of x86 less the NUL: a vmlinux has no setup header to ask.
constexpr uint64_t kVmlinuxCommandLineMaxBytes = 2047;

Result<void> fill_memory_map(const BootOptions& options, boot_params& params) {
  if (options.memory_map.size() > std::size(params.e820_table))
    return Error(ErrorKind::kInvalidArgument, "The memory map has " +
                                                  std::to_string(options.memory_map.size()) +
                                                  " entries: boot_params has room for " +
                                                  std::to_string(std::size(params.e820_table)));
  for (size_t i = 0; i < options.memory_map.size(); ++i) {
    const E820Entry& entry = options.memory_map[i];
    params.e820_table[i] = {.addr = entry.base.value,
                            .size = entry.size_bytes,
                            .type = static_cast<uint32_t>(entry.type)};
  }
  params.e820_entries = static_cast<uint8_t>(options.memory_map.size());
  return {};
}

}  // namespace

Result<BootState> enter_linux64(setup_header header, const Linux64Entry& entry,
                                const BootOptions& options, Placement& placement) {
  if (!options.modules.empty())
    return Error(ErrorKind::kInvalidArgument,
                 "A Linux kernel takes an initrd, no modules: modules are for PVH and multiboot");
  auto command_lines = CommandLines::create(placement);
  if (!command_lines) return command_lines.error();
  const auto command_line = command_lines->add(options.command_line, entry.command_line_max_bytes);
  if (!command_line) return command_line.error();
  const auto initrd = load_initrd(options, entry.initrd_end, placement);
  if (!initrd) return initrd.error();

  // Both lie below 4 GiB, so the upper halves in boot_params stay zero.
  header.cmd_line_ptr = static_cast<uint32_t>(*command_line);
  header.ramdisk_image = static_cast<uint32_t>(initrd->address);
  header.ramdisk_size = static_cast<uint32_t>(initrd->size_bytes);
  header.type_of_loader = kUnknownLoader;

  // A page is much for a stack of unknown size.
  const auto params = std::make_unique<boot_params>();
  params->hdr = header;
  params->acpi_rsdp_addr = options.acpi_rsdp.value;
  SKIFF_RETURN_IF_ERROR(fill_memory_map(options, *params));
  SKIFF_RETURN_IF_ERROR(
      placement.put("the zero page", kZeroPageAddress, std::as_bytes(std::span(params.get(), 1))));

  auto state = enter_long_mode(placement);
  if (!state) return state.error();
  state->rip = entry.address;
  state->rsi = kZeroPageAddress.value;
  return *state;
}

Result<BootState> load_vmlinux(const ElfImage& image, const BootOptions& options,
                               Placement& placement) {
  if (!image.is_64_bit)
    return Error(ErrorKind::kUnsupported,
                 "The kernel is a 32-bit ELF file: the 64-bit Linux boot protocol needs ELF64");
  SKIFF_RETURN_IF_ERROR(place_elf(image, image.entry, placement));
  setup_header header{};
  header.boot_flag = kBootFlag;
  header.header = kHeaderMagic;
  header.version = kProtocolVersion;
  header.loadflags = LOADED_HIGH;
  return enter_linux64(header,
                       {.address = image.entry,
                        .command_line_max_bytes = kVmlinuxCommandLineMaxBytes,
                        .initrd_end = kIdentityMapBytes},
                       options, placement);
}

}  // namespace skiff::firmware
