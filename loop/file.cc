// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/file.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK a FIFO would keep us waiting for a writer.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return Error::from_errno(errno, path);
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return Error::from_errno(errno, path);
  if (!S_ISREG(info.st_mode))
    return Error(ErrorKind::kInvalidArgument, fmt::format("{}: This is not a regular file", path));
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedFile({});
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (mapping == MAP_FAILED) return Error::from_errno(errno, path);
  return MappedFile({static_cast<const std::byte*>(mapping), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<std::vector<std::byte>> read_file(const std::string& path, uint64_t size_bytes_max) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  const auto bytes = file->bytes();
  if (bytes.size() > size_bytes_max)
    return Error(ErrorKind::kExhausted, fmt::format("{}: {} bytes are more than the allowed {}",
                                                    path, bytes.size(), size_bytes_max));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

}  // namespace skiff::loop
