// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "tests/block/formats/raw_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

class FaultyEngineTest : public RawChannelTest {
 protected:
  ~FaultyEngineTest() override {
    channel_.reset();
    image_.reset();
  }
  void open_faulty(const std::string& rules, uint32_t alignment = 1) {
    plan_.set(*FaultRules::parse(rules));
    auto file = FileDevice::open(
        {.path = dir_.make_file("disk.img", model_), .alignment_bytes_min = alignment});
    ASSERT_TRUE(file) << file.error().message();
    image_ = std::make_unique<RawImage>(*std::move(file), IoEngineKind::kAuto, *pool_, &plan_);
    channel_ = *image_->open_channel(*loop_);
  }
  void random_requests(int rounds) {
    std::mt19937 random(3);
    for (int round = 0; round < rounds; ++round) {
      const size_t length = 512 * (1 + random() % 64);
      const size_t offset = 512 * (random() % (kDiskBytes / 512 - length / 512 + 1));
      std::vector<std::byte> bytes(length);
      const auto at = model_.begin() + static_cast<ptrdiff_t>(offset);
      if (random() % 2 == 0) {
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
        Probe write(BlockOp::kWrite, offset, bytes);
        write.request.fua = random() % 8 == 0;
        ASSERT_EQ(run(write), 0);
        std::ranges::copy(bytes, at);
      } else {
        ASSERT_EQ(run(BlockOp::kRead, offset, bytes), 0);
        ASSERT_TRUE(std::ranges::equal(bytes, std::span(at, length)));
      }
    }
    EXPECT_EQ(dir_.read_file("disk.img"), model_);
  }
  FaultPlan plan_;
  std::vector<std::byte> model_ = pattern(kDiskBytes);
};

TEST_F(FaultyEngineTest, ShortAndInterruptedTransfersEndWhole) {
  open_faulty("io=short,p=0.5;io=eintr,p=0.3;io=eagain,p=0.3");
  random_requests(200);
  EXPECT_GT(plan_.faults(), 100u);
}

TEST_F(FaultyEngineTest, EvenWhenItHappensEveryTime) {
  for (const char* rules : {"io=short", "io=eintr", "io=eagain"}) {
    channel_.reset();
    image_.reset();
    open_faulty(rules);
    random_requests(20);
    EXPECT_EQ(run_range(BlockOp::kFlush, 0, 0), 0);
    EXPECT_EQ(run_range(BlockOp::kWriteZeroes, 0, 4096), 0);
    std::fill_n(model_.begin(), 4096, std::byte{0});
  }
}

TEST_F(FaultyEngineTest, AlsoUnderAReadModifyWrite) {
  open_faulty("io=short,p=0.5;io=eintr,p=0.3", 4096);
  random_requests(100);
}

TEST_F(FaultyEngineTest, ShortReadAtTheEndOfAFileThatShrankIsStillAnError) {
  open_faulty("io=short");
  ASSERT_EQ(::truncate(dir_.path("disk.img").c_str(), 4096), 0);
  std::vector<std::byte> buffer(8192);
  EXPECT_EQ(run(BlockOp::kRead, 0, buffer), -EIO);
  EXPECT_EQ(run(BlockOp::kRead, 0, std::span(buffer).first(4096)), 0);
}

}  // namespace
}  // namespace skiff::block
