// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/io_uring_engine.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/file_device.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

class IoUringEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pool = loop::WorkerPool::create({});
    ASSERT_TRUE(pool);
    pool_ = *std::move(pool);
    auto made = loop::EventLoop::create({.backend = loop::EventLoop::Backend::kIoUring});
    if (!made) GTEST_SKIP() << "REFUSED BY THIS KERNEL: " << made.error().message();
    loop_ = *std::move(made);
  }
  int32_t read_once(IoEngine& engine) {
    std::array<std::byte, 512> buffer;
    const iovec iov = {buffer.data(), buffer.size()};
    int32_t got = 0;
    IoRequest request = {
        .length_bytes = buffer.size(),
        .iov = {&iov, 1},
        .done = [](IoRequest& io, int32_t result) { *static_cast<int32_t*>(io.owner) = result; },
        .owner = &got};
    IoRequest* one = &request;
    engine.submit({&one, 1});
    while (engine.in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
    return got;
  }

  TempDir dir_;
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
};

// The ring may hold on to its fixed file for a while after the engine and the device have gone.
TEST_F(IoUringEngineTest, ImageLockEndsWithTheDeviceWhateverTheRingStillHolds) {
  const std::string path = dir_.make_file("disk", pattern(4096));
  auto device = FileDevice::open({.path = path});
  ASSERT_TRUE(device);
  IoUringEngine engine((*device)->target(), *loop_, *pool_);
  ASSERT_EQ(read_once(engine), 512);
  EXPECT_FALSE(FileDevice::open({.path = path}));
  device->reset();
  // The engine's fixed file serves on, and holds no lock.
  EXPECT_EQ(read_once(engine), 512);
  const auto next = FileDevice::open({.path = path});
  EXPECT_TRUE(next) << next.error().message();
}

TEST_F(IoUringEngineTest, MoreEnginesThanFixedFilesAllWork) {
  const std::string path = dir_.make_file("disk", pattern(4096));
  auto device = FileDevice::open({.path = path});
  ASSERT_TRUE(device);
  std::vector<std::unique_ptr<IoUringEngine>> engines;
  for (int i = 0; i < 100; ++i) {
    engines.push_back(std::make_unique<IoUringEngine>((*device)->target(), *loop_, *pool_));
    EXPECT_EQ(read_once(*engines.back()), 512);
  }
}

TEST_F(IoUringEngineTest, DescriptorsAreGivenBack) {
  const std::string path = dir_.make_file("disk", pattern(4096));
  auto device = FileDevice::open({.path = path});
  ASSERT_TRUE(device);
  const auto descriptors = [] {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
      ++count;
    return count;
  };
  const size_t before = descriptors();
  for (int i = 0; i < 200; ++i) {
    IoUringEngine engine((*device)->target(), *loop_, *pool_);
    ASSERT_EQ(read_once(engine), 512);
  }
  EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace skiff::block
