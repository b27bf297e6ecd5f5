// SPDX-License-Identifier: GPL-2.0-or-later
// FileDevice: a regular file or a block device, opened, locked and asked what it can do.
//
// Thread: open() on the main loop (it blocks); the facts are constant and may be read anywhere.
// Ownership: owns the descriptor, and with it the image's locks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "block/block_limits.h"
#include "block/io_device.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::block {

enum class DirectIo : uint8_t { kOff, kOn };
enum class WriteAccess : uint8_t { kReadWrite, kReadOnly };

class FileDevice final : public IoDevice {
 public:
  struct Options {
    std::string path;
    WriteAccess access = WriteAccess::kReadWrite;
    DirectIo direct = DirectIo::kOff;
    // Treats the file as if it wanted at least this; for tests of what 4 KiB devices need.
    uint32_t alignment_bytes_min = 1;
  };

  // Refuses directories, FIFOs, sockets and character devices (kInvalidArgument), files in use by
  // others (kBusy), empty ones, and O_DIRECT where the file system cannot (kUnsupported).
  static loop::Result<std::unique_ptr<FileDevice>> open(const Options& options);

  int fd() const { return target_.fd; }
  const IoTarget& target() const override { return target_; }
  const std::string& name() const override { return path_; }
  bool is_read_only() const override { return read_only_; }
  // A file whose size is no multiple of 512 is served up to the last whole sector.
  uint64_t size_bytes() const override { return size_bytes_.load(std::memory_order_relaxed); }
  // Of a regular file any multiple of 512 and of the alignment; a block device is followed only.
  loop::Result<void> resize(std::optional<uint64_t> size_bytes) override;
  const BlockLimits& limits() const override { return limits_; }

 private:
  FileDevice() = default;
  loop::Result<void> open_fd(const Options& options);
  loop::Result<void> learn_size();
  loop::Result<void> set_file_size(uint64_t size_bytes);
  loop::Result<void> learn_alignment(const Options& options);
  void learn_fallocate();

  std::string path_;
  loop::UniqueFd fd_;
  IoTarget target_;
  bool read_only_ = false;
  bool block_device_ = false;
  std::atomic<uint64_t> size_bytes_{0};
  BlockLimits limits_;
};

}  // namespace skiff::block
