// SPDX-License-Identifier: GPL-2.0-or-later
// CpioWriter: makes a cpio archive in the "newc" format, as Linux takes for its initramfs (Linux
// Documentation/driver-api/early-userspace/buffer-format.rst).
//
// Thread: one at a time. Ownership: owns the archive; copies what it is given.
//
//   CpioWriter archive;
//   SKIFF_RETURN_IF_ERROR(archive.add_directory("dev", 0755));
//   SKIFF_RETURN_IF_ERROR(archive.add_file("init", 0755, program));
//   const std::vector<std::byte> bytes = archive.finish();
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "loop/result.h"

namespace skiff::firmware {

enum class CpioDevice { kCharacter, kBlock };

// Paths are relative ("dev/console"); a directory must come before what is in it, because the
// kernel makes none by itself. Everything belongs to root, has the time 0.
class CpioWriter {
 public:
  // `permissions` are the lower twelve bits of the mode. kInvalidArgument for a path that is
  // empty, absolute, longer than 4095 bytes or has a NUL, and for a file of 4 GiB or more.
  loop::Result<void> add_file(std::string_view path, uint32_t permissions,
                              std::span<const std::byte> content);
  loop::Result<void> add_directory(std::string_view path, uint32_t permissions);

  struct DeviceNode {
    CpioDevice kind = CpioDevice::kCharacter;
    uint32_t major = 0;
    uint32_t minor = 0;
  };
  loop::Result<void> add_device(std::string_view path, uint32_t permissions, DeviceNode node);

  // With the trailer, a multiple of 512 bytes; the writer is empty afterwards.
  std::vector<std::byte> finish();

 private:
  struct Entry {
    std::string_view path;
    uint32_t mode = 0;
    DeviceNode node = {};
    std::span<const std::byte> content = {};
  };
  loop::Result<void> add(const Entry& entry);
  void append(const Entry& entry, uint32_t inode);

  std::vector<std::byte> bytes_;
  uint32_t next_inode_ = 1;
};

}  // namespace skiff::firmware
