// SPDX-License-Identifier: GPL-2.0-or-later
// TempDir: a directory of the test's own, gone with everything in it at the end.
//
// Thread: the test's.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "loop/unique_fd.h"

namespace skiff {

class TempDir {
 public:
  // Under TEST_TMPDIR's file system: /tmp unless gtest is told otherwise.
  TempDir() : TempDir(::testing::TempDir()) {}
  // Under `parent`, which ends with a slash: for a file system of the test's choice.
  explicit TempDir(const std::string& parent) : path_(parent + "skiff-test-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << path_;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

  std::string make_file(const std::string& name, std::span<const std::byte> bytes) const {
    const loop::UniqueFd fd(
        ::open(path(name).c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    EXPECT_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return path(name);
  }
  std::string make_sparse(const std::string& name, uint64_t size_bytes) const {
    make_file(name, {});
    EXPECT_EQ(::truncate(path(name).c_str(), static_cast<off_t>(size_bytes)), 0);
    return path(name);
  }
  std::vector<std::byte> read_file(const std::string& name) const {
    const loop::UniqueFd fd(::open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<std::byte> bytes(std::filesystem::file_size(path(name)));
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

 private:
  std::string path_;
};

// A pattern that repeats at no power of two, so that misplaced bytes show.
inline std::vector<std::byte> pattern(size_t size_bytes, uint32_t seed = 1) {
  std::vector<std::byte> bytes(size_bytes);
  for (size_t i = 0; i < size_bytes; ++i)
    bytes[i] = static_cast<std::byte>((i * 7 + i / 251 + size_t{seed} * 31) & 0xff);
  return bytes;
}

}  // namespace skiff
