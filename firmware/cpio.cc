// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/cpio.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint32_t kTypeFile = 0100000;
constexpr uint32_t kTypeDirectory = 0040000;
constexpr uint32_t kTypeCharacter = 0020000;
constexpr uint32_t kTypeBlock = 0060000;
constexpr uint32_t kPermissions = 07777;

constexpr size_t kMaxPathBytes = 4095;
constexpr size_t kAlignment = 4;
constexpr size_t kBlockBytes = 512;
constexpr std::string_view kTrailer = "TRAILER!!!";

void pad(std::vector<std::byte>& bytes, size_t alignment) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
}

void append_field(std::vector<std::byte>& bytes, uint64_t value) {
  std::array<char, 9> digits;
  std::snprintf(digits.data(), digits.size(), "%08x", static_cast<unsigned>(value));
  for (size_t i = 0; i < 8; ++i) bytes.push_back(static_cast<std::byte>(digits[i]));
}

}  // namespace

Result<void> CpioWriter::add_file(std::string_view path, uint32_t permissions,
                                  std::span<const std::byte> content) {
  return add({.path = path, .mode = kTypeFile | (permissions & kPermissions), .content = content});
}

Result<void> CpioWriter::add_directory(std::string_view path, uint32_t permissions) {
  return add({.path = path, .mode = kTypeDirectory | (permissions & kPermissions)});
}

Result<void> CpioWriter::add_device(std::string_view path, uint32_t permissions, DeviceNode node) {
  const uint32_t type = node.kind == CpioDevice::kBlock ? kTypeBlock : kTypeCharacter;
  return add({.path = path, .mode = type | (permissions & kPermissions), .node = node});
}

Result<void> CpioWriter::add(const Entry& entry) {
  const std::string_view path = entry.path;
  // The trailer's name would end the archive early.
  if (path.empty() || path.front() == '/' || path.size() > kMaxPathBytes || path == kTrailer ||
      path.find('\0') != std::string_view::npos)
    return Error(ErrorKind::kInvalidArgument,
                 "'" + std::string(path.substr(0, 64)) +
                     "' cannot be a path in a cpio archive: it must be relative, not empty and at "
                     "most 4095 bytes long");
  if (entry.content.size() > UINT32_MAX)
    return Error(ErrorKind::kInvalidArgument,
                 "'" + std::string(path.substr(0, 64)) +
                     "' is too big for a cpio archive: files must be smaller than 4 GiB");
  append(entry, next_inode_++);
  return {};
}

void CpioWriter::append(const Entry& entry, uint32_t inode) {
  constexpr std::string_view kMagic = "070701";
  for (const char c : kMagic) bytes_.push_back(static_cast<std::byte>(c));
  const bool is_directory = (entry.mode & ~kPermissions) == kTypeDirectory;
  append_field(bytes_, inode);
  append_field(bytes_, entry.mode);
  append_field(bytes_, 0);  // User.
  append_field(bytes_, 0);  // Group.
  append_field(bytes_, is_directory ? 2 : 1);
  append_field(bytes_, 0);  // Modification time.
  append_field(bytes_, entry.content.size());
  append_field(bytes_, 0);  // Major and minor number of the device it lies on.
  append_field(bytes_, 0);
  append_field(bytes_, entry.node.major);
  append_field(bytes_, entry.node.minor);
  append_field(bytes_, entry.path.size() + 1);
  append_field(bytes_, 0);  // Checksum: not in this format.
  for (const char c : entry.path) bytes_.push_back(static_cast<std::byte>(c));
  bytes_.push_back(std::byte{0});
  pad(bytes_, kAlignment);
  bytes_.insert(bytes_.end(), entry.content.begin(), entry.content.end());
  pad(bytes_, kAlignment);
}

std::vector<std::byte> CpioWriter::finish() {
  append({.path = kTrailer}, 0);
  pad(bytes_, kBlockBytes);
  next_inode_ = 1;
  return std::exchange(bytes_, {});
}

}  // namespace skiff::firmware
