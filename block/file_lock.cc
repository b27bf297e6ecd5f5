// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/file_lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <memory>
#include <span>
#include <string>

#include "loop/log.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// QEMU's numbers of permissions (BLK_PERM_*) and its two rows of lock bytes.
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kUsedRow = 100;
constexpr off_t kUnsharedRow = 200;

struct flock byte_range(short type, off_t byte) {
  struct flock range = {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = byte;
  range.l_len = 1;
  return range;
}

bool take(int fd, off_t byte) {
  struct flock range = byte_range(F_RDLCK, byte);
  return fcntl(fd, F_OFD_SETLK, &range) == 0;
}

void release(int fd, off_t byte) {
  struct flock range = byte_range(F_UNLCK, byte);
  fcntl(fd, F_OFD_SETLK, &range);
}

// Does any other file description hold the byte, shared or not?
bool held_elsewhere(int fd, off_t byte) {
  struct flock range = byte_range(F_WRLCK, byte);
  return fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};
using UniqueDir = std::unique_ptr<DIR, DirCloser>;

bool is_number(const char* name) { return name[0] >= '0' && name[0] <= '9'; }

// Does one of the process's descriptors hold an OFD lock on this inode? The locks themselves do
// not name their owner; /proc/PID/fdinfo does.
bool holds_lock(const std::string& process, const std::string& inode_mark) {
  const std::string folder = process + "/fdinfo";
  const UniqueDir entries(opendir(folder.c_str()));
  if (!entries) return false;
  while (const dirent* entry = readdir(entries.get())) {
    if (!is_number(entry->d_name)) continue;
    std::ifstream info(folder + "/" + entry->d_name);
    for (std::string line; std::getline(info, line);) {
      if (line.starts_with("lock:") && line.find("OFDLCK") != std::string::npos &&
          line.find(inode_mark) != std::string::npos)
        return true;
    }
  }
  return false;
}

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// " by qemu-system-x86 (process 123)", or nothing where /proc does not tell.
std::string describe_holder(int fd) {
  struct stat facts = {};
  if (fstat(fd, &facts) != 0) return {};
  const std::string inode_mark = fmt::format(":{} ", facts.st_ino);
  const UniqueDir processes(opendir("/proc"));
  if (!processes) return {};
  const std::string own_id = std::to_string(getpid());
  std::string own;
  while (const dirent* entry = readdir(processes.get())) {
    if (!is_number(entry->d_name)) continue;
    const std::string process = std::string("/proc/") + entry->d_name;
    if (!holds_lock(process, inode_mark)) continue;
    if (own_id == entry->d_name) {
      own = " by this same process";
      continue;
    }
    return fmt::format(" by {} (process {})", read_line(process + "/comm"), entry->d_name);
  }
  return own;
}

Error conflict(int fd, const std::string& path, ImageAccess access) {
  const std::string holder = describe_holder(fd);
  if (access == ImageAccess::kReadOnly) {
    return Error(ErrorKind::kBusy,
                 fmt::format("Disk {} is in use for writing{}; stop that first, or give this "
                             "machine a copy",
                             path, holder));
  }
  return Error(ErrorKind::kBusy,
               fmt::format("Disk {} is in use{}, and two writers would destroy it; stop that "
                           "first, give this machine a copy, or use readonly=on for both",
                           path, holder));
}

}  // namespace

Result<void> lock_image(int fd, const std::string& path, ImageAccess access) {
  const std::array<off_t, 3> wanted = {kUsedRow + kConsistentRead, kUnsharedRow + kWrite,
                                       kUsedRow + kWrite};
  const auto bytes =
      std::span(wanted).first(access == ImageAccess::kReadWrite ? wanted.size() : 2u);
  // First lock, then look: of two that start together at least one sees the other.
  for (const off_t byte : bytes) {
    if (take(fd, byte)) continue;
    const int error = errno;
    for (const off_t taken : bytes) release(fd, taken);
    if (error == EAGAIN || error == EACCES) return conflict(fd, path, access);
    SKIFF_LOG(kWarn, "Disk {} cannot be locked ({}); make sure that nothing else uses it", path,
              Error::from_errno(error, "fcntl").message());
    return {};
  }
  const bool reader_refused = held_elsewhere(fd, kUnsharedRow + kConsistentRead);
  const bool writer_elsewhere = held_elsewhere(fd, kUsedRow + kWrite);
  const bool write_refused =
      access == ImageAccess::kReadWrite && held_elsewhere(fd, kUnsharedRow + kWrite);
  if (!reader_refused && !writer_elsewhere && !write_refused) return {};
  // The message looks for others' locks, so ours must not be among them.
  for (const off_t byte : bytes) release(fd, byte);
  return conflict(fd, path, access);
}

}  // namespace skiff::block
