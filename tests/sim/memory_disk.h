// SPDX-License-Identifier: GPL-2.0-or-later
// MemoryDisk: a raw image over a file in memory, with the engines of a real one.
//
// Thread: the test's; channels as everywhere. Ownership: its channels go before it.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/fault_rules.h"
#include "block/open_image.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::sim {

class MemoryDisk {
 public:
  // `faults` as in the option of that name; none: "".
  MemoryDisk(uint64_t size_bytes, std::string_view faults) : size_bytes_(size_bytes) {
    file_.reset(memfd_create("disk", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(file_.get(), static_cast<off_t>(size_bytes)), 0);
    block::ImageOptions options;
    options.path = "/proc/self/fd/" + std::to_string(file_.get());
    options.format = block::ImageFormat::kRaw;
    options.faults = *block::FaultRules::parse(faults);
    image_ = *block::open_image(options, *pool_);
  }

  block::BlockBackend& image() { return *image_; }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> bytes(size_bytes_);
    EXPECT_EQ(pread(file_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

 private:
  const uint64_t size_bytes_;
  const std::unique_ptr<loop::WorkerPool> pool_ = *loop::WorkerPool::create({});
  loop::UniqueFd file_;
  std::unique_ptr<block::BlockBackend> image_;
};

}  // namespace skiff::sim
