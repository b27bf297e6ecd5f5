// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/boot.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "devices/core/guest_memory.h"
#include "firmware/bytes.h"
#include "firmware/elf.h"
#include "firmware/handover.h"
#include "firmware/multiboot.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

struct ForeignMagic {
  uint64_t offset;
  std::string_view bytes;
  std::string_view advice;
};

// Files that people take for kernels. The first that fits counts: an arm64 Image may begin with
// "MZ" as well.
constexpr std::array kForeignFiles = {
    ForeignMagic{56, "ARM\x64", "an arm64 Image: this machine is x86, is it the right kernel?"},
    ForeignMagic{56, "RISCV", "a RISC-V Image: this machine is x86, is it the right kernel?"},
    ForeignMagic{0, "\x1f\x8b", "compressed with gzip: unpack it first (gzip -d)"},
    ForeignMagic{0, "\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first (zstd -d)"},
    ForeignMagic{0,
                 {"\xfd"
                  "7zXZ\0",
                  6},
                 "compressed with xz: unpack it first (xz -d)"},
    ForeignMagic{0, "\x02\x21\x4c\x18", "compressed with lz4: unpack it first (lz4 -d)"},
    ForeignMagic{0, "BZh", "compressed with bzip2: unpack it first (bzip2 -d)"},
    ForeignMagic{0, "070701", "a cpio archive: is it the initrd?"},
    ForeignMagic{0, "!<arch>", "an ar archive or a Debian package: take the kernel out of it"},
    ForeignMagic{0, "\x27\x05\x19\x56", "a U-Boot image: take the kernel out of it"},
    ForeignMagic{0, "MZ", "an EFI program without a Linux boot header: EFI is not supported"},
    ForeignMagic{0, "#!", "a script"},
};

Error unknown_format(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const ForeignMagic& magic : kForeignFiles) {
    if (text.size() >= magic.offset && text.substr(magic.offset).starts_with(magic.bytes))
      return {ErrorKind::kUnsupported,
              "The file is no kernel that can be booted; it is " + std::string(magic.advice)};
  }
  return {ErrorKind::kUnsupported,
          "The file is no kernel that can be booted: neither a bzImage, an x86 ELF file nor a "
          "multiboot kernel (" +
              size_text(file.size()) + ")"};
}

Result<BootState> load_elf_as(Protocol protocol, const ElfImage& image, const BootOptions& options,
                              Placement& placement) {
  return protocol == Protocol::kPvh ? load_pvh(image, options, placement)
                                    : load_vmlinux(image, options, placement);
}

Result<BootState> load_elf_auto(std::span<const std::byte> file, const BootOptions& options,
                                Placement& placement) {
  const auto image = parse_elf(file);
  if (!image) return image.error();
  if (image->is_64_bit && image->is_linux) return load_vmlinux(*image, options, placement);
  const auto multiboot = find_multiboot_header(file);
  if (multiboot && !image->is_64_bit) return load_multiboot(file, options, placement);
  if (image->pvh_entry) return load_pvh(*image, options, placement);
  if (multiboot && multiboot->has_address_fields()) return load_multiboot(file, options, placement);
  if (image->is_64_bit) return load_vmlinux(*image, options, placement);
  return Error(ErrorKind::kUnsupported,
               "The kernel is a 32-bit ELF file with neither a multiboot header in its first 8 KiB "
               "nor a PVH note: nothing says how to start it");
}

}  // namespace

Result<BootState> load_kernel(std::span<const std::byte> kernel_file, const BootOptions& options,
                              const devices::GuestMemory& memory) {
  if (kernel_file.empty()) return Error(ErrorKind::kCorrupt, "The kernel file is empty");
  Placement placement(memory, options.memory_map);
  if (options.protocol == Protocol::kMultiboot)
    return load_multiboot(kernel_file, options, placement);
  if (is_elf(kernel_file)) {
    if (options.protocol == Protocol::kAuto) return load_elf_auto(kernel_file, options, placement);
    const auto image = parse_elf(kernel_file);
    if (!image) return image.error();
    return load_elf_as(options.protocol, *image, options, placement);
  }
  if (options.protocol == Protocol::kPvh)
    return Error(ErrorKind::kUnsupported, "A PVH kernel is an ELF file, this one is not");
  if (is_bzimage(kernel_file)) return load_bzimage(kernel_file, options, placement);
  if (options.protocol == Protocol::kAuto && find_multiboot_header(kernel_file))
    return load_multiboot(kernel_file, options, placement);
  return unknown_format(kernel_file);
}

}  // namespace skiff::firmware
