// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/file_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "block/aligned_buffer.h"
#include "block/block_limits.h"
#include "block/file_lock.h"
#include "block/request_fixup.h"
#include "loop/log.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

Result<void> check_type(const std::string& path, mode_t mode) {
  if (S_ISREG(mode) || S_ISBLK(mode)) return {};
  const char* what = "a socket";
  if (S_ISDIR(mode)) what = "a directory";
  if (S_ISFIFO(mode)) what = "a FIFO";
  if (S_ISCHR(mode)) what = "a character device";
  return Error(
      ErrorKind::kInvalidArgument,
      fmt::format("Disk {} is {}; a disk is a regular file or a block device", path, what));
}

Error open_error(const std::string& path, int os_error, bool read_only) {
  Error error = Error::from_errno(os_error, fmt::format("Opening disk {}", path));
  const bool denied = os_error == EACCES || os_error == EPERM || os_error == EROFS;
  if (!denied || read_only) return error;
  return Error(error.kind(), error.message() + " (readonly=on needs only read access)", os_error);
}

Error no_direct_io(const std::string& path) {
  return Error(ErrorKind::kUnsupported,
               fmt::format("Disk {} cannot be opened with direct=on: its file system has no "
                           "O_DIRECT; leave direct=on out",
                           path));
}

// The queue limits of a block device; a partition has its disk's.
uint64_t queue_limit(dev_t device, const char* name) {
  const std::string base = fmt::format("/sys/dev/block/{}:{}/", major(device), minor(device));
  for (const char* queue : {"queue/", "../queue/"}) {
    std::ifstream file(base + queue + name);
    uint64_t value = 0;
    if (file >> value) return value;
  }
  return 0;
}

// The smallest alignment at which a direct read works, where the kernel has no STATX_DIOALIGN.
uint32_t direct_alignment_by_trial(int fd) {
  const AlignedBuffer buffer(2 * 4096, 4096);
  for (const uint32_t alignment : {512u, 4096u}) {
    const ssize_t got = pread(fd, buffer.data() + alignment, alignment, alignment);
    if (got >= 0) return alignment;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<FileDevice>> FileDevice::open(const Options& options) {
  std::unique_ptr<FileDevice> device(new FileDevice);
  device->path_ = options.path;
  device->read_only_ = options.access == WriteAccess::kReadOnly;
  SKIFF_RETURN_IF_ERROR(device->open_fd(options));
  SKIFF_RETURN_IF_ERROR(
      lock_image(device->fd(), device->path_,
                 device->read_only_ ? ImageAccess::kReadOnly : ImageAccess::kReadWrite));
  SKIFF_RETURN_IF_ERROR(device->learn_size());
  SKIFF_RETURN_IF_ERROR(device->learn_alignment(options));
  if (!device->read_only_) device->learn_fallocate();
  return device;
}

Result<void> FileDevice::open_fd(const Options& options) {
  struct stat facts = {};
  // Before open(): opening a FIFO or a tape is not without consequences.
  if (stat(path_.c_str(), &facts) != 0) return open_error(path_, errno, read_only_);
  SKIFF_RETURN_IF_ERROR(check_type(path_, facts.st_mode));

  const int direct = options.direct == DirectIo::kOn ? O_DIRECT : 0;
  const int flags = O_CLOEXEC | O_NONBLOCK | (read_only_ ? O_RDONLY : O_RDWR) | direct;
  fd_.reset(::open(path_.c_str(), flags));
  if (!fd_) {
    if (errno == EINVAL && direct != 0) return no_direct_io(path_);
    return open_error(path_, errno, read_only_);
  }
  // Again, of what was really opened.
  if (fstat(fd_.get(), &facts) != 0) return open_error(path_, errno, read_only_);
  SKIFF_RETURN_IF_ERROR(check_type(path_, facts.st_mode));
  // io_uring hands EAGAIN back for O_NONBLOCK descriptors.
  if (fcntl(fd_.get(), F_SETFL, flags & ~(O_NONBLOCK | O_CLOEXEC)) != 0)
    return open_error(path_, errno, read_only_);
  block_device_ = S_ISBLK(facts.st_mode);
  target_ = {.fd = fd_.get(), .direct_io = direct != 0};
  return {};
}

Result<void> FileDevice::learn_size() {
  uint64_t size_bytes = 0;
  if (block_device_) {
    if (ioctl(fd(), BLKGETSIZE64, &size_bytes) != 0)
      return Error::from_errno(errno, fmt::format("Asking the size of disk {}", path_));
  } else {
    struct stat facts = {};
    if (fstat(fd(), &facts) != 0)
      return Error::from_errno(errno, fmt::format("Asking the size of disk {}", path_));
    size_bytes = static_cast<uint64_t>(facts.st_size);
  }
  const uint64_t tail_bytes = size_bytes % kSectorBytes;
  if (size_bytes < kSectorBytes) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {} has {} bytes, less than one sector; give it a size, for "
                             "example with truncate -s 8G",
                             path_, size_bytes));
  }
  if (tail_bytes != 0) {
    SKIFF_LOG(kWarn,
              "Disk {} has {} bytes, no multiple of 512; the guest does not see the last {} bytes",
              path_, size_bytes, tail_bytes);
  }
  size_bytes_ = size_bytes - tail_bytes;
  return {};
}

Result<void> FileDevice::resize(std::optional<uint64_t> size_bytes) {
  if (size_bytes) SKIFF_RETURN_IF_ERROR(set_file_size(*size_bytes));
  const uint64_t before_bytes = FileDevice::size_bytes();
  SKIFF_RETURN_IF_ERROR(learn_size());
  // A file that somebody else has given a size that O_DIRECT cannot use to its end.
  const uint64_t now_bytes = FileDevice::size_bytes();
  size_bytes_ = now_bytes - now_bytes % limits_.alignment_bytes;
  if (size_bytes_ > 0) return {};
  size_bytes_ = before_bytes;
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("Disk {} has {} bytes by now, less than one block of {}", path_,
                           now_bytes, limits_.alignment_bytes));
}

Result<void> FileDevice::set_file_size(uint64_t size_bytes) {
  const uint64_t unit = std::max<uint64_t>(kSectorBytes, limits_.alignment_bytes);
  constexpr uint64_t kMaxBytes = uint64_t{1} << 62;
  if (block_device_) {
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Disk {} is a block device; change its size where it comes from, "
                             "then resize without a size to follow it",
                             path_));
  }
  if (read_only_) return Error(ErrorKind::kPermission, fmt::format("Disk {} is read-only", path_));
  if (size_bytes < unit || size_bytes > kMaxBytes || size_bytes % unit != 0) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {}: {} bytes are not possible (allowed: a multiple of {})",
                             path_, size_bytes, unit));
  }
  int status = 0;
  do {
    status = ftruncate(fd(), static_cast<off_t>(size_bytes));
  } while (status != 0 && errno == EINTR);
  if (status == 0) return {};
  return Error::from_errno(errno, fmt::format("Giving disk {} {} bytes", path_, size_bytes));
}

Result<void> FileDevice::learn_alignment(const Options& options) {
  uint32_t offset_alignment = 1;
  uint32_t memory_alignment = 1;
  int block_bytes = 0;
  if (block_device_ && ioctl(fd(), BLKSSZGET, &block_bytes) == 0)
    limits_.physical_block_bytes = static_cast<uint32_t>(std::max(block_bytes, 512));
  if (options.direct == DirectIo::kOn) {
    struct statx facts = {};
    if (statx(fd(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) == 0 &&
        (facts.stx_mask & STATX_DIOALIGN) != 0) {
      offset_alignment = facts.stx_dio_offset_align;
      memory_alignment = facts.stx_dio_mem_align;
    } else {
      offset_alignment = direct_alignment_by_trial(fd());
      memory_alignment = offset_alignment;
    }
    if (offset_alignment == 0) return no_direct_io(path_);
  }
  offset_alignment = std::max(offset_alignment, options.alignment_bytes_min);
  memory_alignment = std::max(memory_alignment, options.alignment_bytes_min);
  if (size_bytes_ % offset_alignment != 0) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {} has {} bytes, but direct=on needs a multiple of {} here; "
                             "leave direct=on out, or grow it with truncate -s %{}",
                             path_, size_bytes_, offset_alignment, offset_alignment));
  }
  limits_.alignment_bytes = offset_alignment;
  limits_.memory_alignment_bytes = memory_alignment;
  limits_.physical_block_bytes = std::max(limits_.physical_block_bytes, offset_alignment);
  return {};
}

void FileDevice::learn_fallocate() {
  if (block_device_) {
    struct stat facts = {};
    if (fstat(fd(), &facts) != 0) return;
    // With larger blocks than the guest's sectors the kernel refuses what the guest may ask.
    if (limits_.physical_block_bytes > kSectorBytes) return;
    limits_.discard = queue_limit(facts.st_rdev, "discard_max_bytes") > 0;
    limits_.write_zeroes = true;
    return;
  }
  // By trial behind the end of the file, where there is nothing to lose.
  const uint64_t behind_end = (size_bytes_ / 4096 + 2) * 4096;
  const auto works = [&](IoOp op) {
    return fallocate(fd(), fallocate_mode(op), static_cast<off_t>(behind_end), 4096) == 0;
  };
  limits_.write_zeroes = works(IoOp::kWriteZeroes);
  limits_.discard = works(IoOp::kDiscard);  // After it: gives back what zeroing reserved.
}

}  // namespace skiff::block
