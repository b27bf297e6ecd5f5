// SPDX-License-Identifier: GPL-2.0-or-later
// Any file is a kernel or one clear line. The first byte chooses the protocol and what comes along.
//
// Bits 0-1: protocol; bit 2: an initrd of two parts; bit 3: a module; bit 4: 32 MiB of memory
// instead of 2; bit 5: a reserved range in the middle.
#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/guest_memory.h"
#include "firmware/boot.h"
#include "firmware/layout.h"
#include "firmware/memory_map.h"
#include "loop/check.h"

namespace {

using skiff::devices::GuestMemory;
namespace firmware = skiff::firmware;

constexpr uint64_t kBigBytes = 32 << 20;
constexpr uint64_t kSmallBytes = 2 << 20;

// Lazily backed, so that a large guest costs only what is written.
std::byte* guest_ram() {
  static std::byte* ram =
      static_cast<std::byte*>(mmap(nullptr, kBigBytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  SKIFF_CHECK(ram != MAP_FAILED);
  return ram;
}

firmware::BootOptions make_options(uint8_t choice, const GuestMemory& memory) {
  static const std::array<std::byte, 700> kFile{};
  constexpr std::array kProtocols = {firmware::Protocol::kAuto, firmware::Protocol::kLinux64,
                                     firmware::Protocol::kPvh, firmware::Protocol::kMultiboot};
  firmware::BootOptions options;
  options.protocol = kProtocols[choice & 3];
  options.kernel_name = "kernel";
  options.command_line = "console=ttyS0";
  if ((choice & 4) != 0) options.initrd = {kFile, std::span(kFile).first(5)};
  if ((choice & 8) != 0) options.modules = {{.command_line = "module", .bytes = kFile}};
  const firmware::MemoryRange hole{.base = {0x180000}, .size_bytes = 0x1000};
  const std::span<const firmware::MemoryRange> reserved(&hole, (choice & 32) != 0 ? 1 : 0);
  options.memory_map = firmware::make_memory_map(memory, reserved);
  options.acpi_rsdp = firmware::kAcpiAddress;
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint64_t memory_bytes = (data[0] & 16) != 0 ? kBigBytes : kSmallBytes;
  const GuestMemory memory({{.base = {0}, .host = guest_ram(), .size_bytes = memory_bytes}});
  const auto file = std::as_bytes(std::span(data, size)).subspan(1);
  const auto state = firmware::load_kernel(file, make_options(data[0], memory), memory);
  if (!state) {
    SKIFF_CHECK(!state.error().message().empty());
    SKIFF_CHECK(state.error().message().find('\n') == std::string::npos);
  } else {
    // What the vCPU begins with lies in memory, and not in the BIOS area.
    SKIFF_CHECK(memory.translate({state->rip}, 1));
    SKIFF_CHECK(state->rip < firmware::kBiosAreaAddress.value ||
                state->rip >= firmware::kHighMemoryAddress.value);
    SKIFF_CHECK(memory.translate(state->gdt, uint64_t{state->gdt_limit_bytes} + 1));
  }
  return 0;
}
