// SPDX-License-Identifier: GPL-2.0-or-later
// The programs of block_bench: how each is told what to do, and what it found.
//
// Thread: the benchmark's only one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace skiff::perf {

// One kind of work on one file.
struct BlockCell {
  std::string place;  // For the tables: "ext4", "tmpfs", "null".
  std::string path;   // Empty: each program's own null device.
  bool random = true;
  uint32_t depth = 1;
};

struct BlockSample {
  double iops = 0;
  double cpu_ns_per_io = 0;
  std::optional<double> syscalls_per_io;
};

class BlockContestant {
 public:
  virtual ~BlockContestant() = default;
  virtual std::string name() const = 0;
  virtual bool can(const BlockCell& cell) const = 0;
  // Nothing when the program failed; then it has been said on stderr.
  virtual std::optional<BlockSample> run(const BlockCell& cell, double seconds) = 0;
};

struct BlockPrograms {
  std::string skiff;
  std::string fio = "fio";
  std::string qemu_img = "qemu-img";
};

// Skiff's io_uring is there twice, first and last: the second is what the measurement is worth.
inline constexpr const char* kReference = "skiff io_uring";
inline constexpr const char* kAgain = "skiff io_uring again";
std::vector<std::unique_ptr<BlockContestant>> block_contestants(const BlockPrograms& programs);

}  // namespace skiff::perf
