// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "firmware/boot.h"
#include "firmware/bytes.h"
#include "firmware/handover.h"
#include "firmware/layout.h"
#include "firmware/placement.h"
#include "firmware/zero_page.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Linux Documentation/arch/x86/boot.rst.
constexpr uint64_t kHeaderOffset = 0x1f1;
constexpr uint64_t kMagicOffset = 0x202;
constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint16_t kMinVersion = 0x020c;       // 3.8: xloadflags.
constexpr uint64_t kEntry64Offset = 0x200;     // "64-bit Boot Protocol".
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kParagraphBytes = 16;
constexpr uint8_t kDefaultSetupSectors = 4;
constexpr uint8_t kNearJump = 0xeb;
constexpr uint8_t kMinJump = 0x264 - kMagicOffset;  // Up to init_size, which version 2.10 added.

struct BzImage {
  setup_header header;
  std::span<const std::byte> protected_mode;  // What is loaded.
};

Error corrupt(std::string what) {
  return {ErrorKind::kCorrupt, "The kernel is a damaged bzImage: " + std::move(what)};
}

// The header ends where its first instruction jumps to; what follows in the file is code.
Result<setup_header> read_header(std::span<const std::byte> file) {
  auto header = read_record<setup_header>(file, kHeaderOffset);
  if (!header) return corrupt("it ends inside its header: was it cut off?");
  if (header->boot_flag != kBootFlag)
    return corrupt("its boot flag is " + hex(header->boot_flag) + ", not 0xaa55");
  if (header->version < kMinVersion)
    return Error(ErrorKind::kUnsupported,
                 "The kernel speaks version " + hex(header->version) +
                     " of the Linux boot protocol: 0x20c or later is needed (Linux 3.8)");
  const auto opcode = static_cast<uint8_t>(header->jump & 0xff);
  const auto distance = static_cast<uint8_t>(header->jump >> 8);
  if (opcode != kNearJump || distance < kMinJump)
    return corrupt("its header does not say where it ends");
  const uint64_t size_bytes = kMagicOffset + distance - kHeaderOffset;
  if (size_bytes < sizeof(setup_header)) {
    auto bytes = std::as_writable_bytes(std::span(&*header, 1));
    std::ranges::fill(bytes.subspan(size_bytes), std::byte{0});
  }
  return *header;
}

Result<BzImage> parse(std::span<const std::byte> file) {
  auto header = read_header(file);
  if (!header) return header.error();
  if ((header->xloadflags & XLF_KERNEL_64) == 0)
    return Error(ErrorKind::kUnsupported,
                 "The kernel has no 64-bit entry point: is it a 32-bit (i386) kernel?");
  if ((header->loadflags & LOADED_HIGH) == 0)
    return Error(ErrorKind::kUnsupported, "The kernel is a zImage, not a bzImage");

  const uint64_t setup_sectors =
      header->setup_sects == 0 ? kDefaultSetupSectors : header->setup_sects;
  const uint64_t setup_bytes = (setup_sectors + 1) * kSectorBytes;
  if (file.size() <= setup_bytes + kEntry64Offset)
    return corrupt("it has " + size_text(file.size()) +
                   " and ends before its code: was it cut off?");
  const auto code = file.subspan(setup_bytes);
  // syssize counts whole paragraphs, the last of which need not be full.
  const uint64_t expected_bytes = header->syssize * kParagraphBytes;
  if (code.size() + kParagraphBytes <= expected_bytes)
    return corrupt("it has " + size_text(file.size()) + ", its header says " +
                   size_text(setup_bytes + expected_bytes) + ": was it cut off?");
  if (header->payload_length == 0 || !slice(code, header->payload_offset, header->payload_length))
    return corrupt("its payload (" + size_text(header->payload_length) + " at offset " +
                   hex(header->payload_offset) + ") is not inside the file");
  return BzImage{.header = *header, .protected_mode = code};
}

Result<void> check_placement_fields(const setup_header& header, uint64_t code_bytes) {
  const uint64_t alignment = header.kernel_alignment;
  if (!std::has_single_bit(alignment) || alignment < kPageBytes)
    return corrupt("its alignment " + hex(alignment) + " is no power of two of at least 4096");
  if (header.pref_address % alignment != 0 || header.pref_address < kHighMemoryAddress.value)
    return corrupt("its load address " + hex(header.pref_address) +
                   " is below 1 MiB or not aligned to " + hex(alignment));
  if (header.init_size < code_bytes)
    return corrupt("it asks for " + size_text(header.init_size) +
                   " of memory, less than it has itself");
  const auto end = checked_add(header.pref_address, header.init_size);
  if (!end || *end > kIdentityMapBytes)
    return corrupt("its load address " + hex(header.pref_address) + " with " +
                   size_text(header.init_size) +
                   " of memory goes past 4 GiB, the end of what can be booted");
  return {};
}

}  // namespace

bool is_bzimage(std::span<const std::byte> file) {
  return read_record<uint32_t>(file, kMagicOffset) == kHeaderMagic;
}

Result<BootState> load_bzimage(std::span<const std::byte> file, const BootOptions& options,
                               Placement& placement) {
  const auto image = parse(file);
  if (!image) return image.error();
  const setup_header& header = image->header;
  SKIFF_RETURN_IF_ERROR(check_placement_fields(header, image->protected_mode.size()));

  // Loaded anywhere lower the kernel would only move itself here, so there is no second choice.
  const uint64_t base = header.pref_address;
  const auto into = placement.claim("The kernel", {base}, header.init_size);
  if (!into) return into.error();
  std::ranges::copy(image->protected_mode, into->begin());
  return enter_linux64(
      header,
      {.address = base + kEntry64Offset,
       .command_line_max_bytes = header.cmdline_size,
       .initrd_end = std::min(uint64_t{header.initrd_addr_max} + 1, kIdentityMapBytes)},
      options, placement);
}

}  // namespace skiff::firmware
