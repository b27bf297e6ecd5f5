// SPDX-License-Identifier: GPL-2.0-or-later
// Whole files, read or mapped at set-up time.
//
// Thread: any; calls block on the disk, so not for a running loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loop/result.h"

namespace skiff::loop {

// A file mapped for reading; move-only, unmapped in the destructor. A file that shrinks afterwards
// is a SIGBUS for whoever reads past its new end, so map only what is used at once.
class MappedFile {
 public:
  // Regular files only; an empty one gives an empty span.
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

// A regular file's content; kExhausted when it is larger than `size_bytes_max`.
Result<std::vector<std::byte>> read_file(const std::string& path, uint64_t size_bytes_max);

}  // namespace skiff::loop
