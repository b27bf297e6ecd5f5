// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/null_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "block/file_device.h"
#include "block/open_image.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using Distribution = NullDevice::Distribution;

TEST(NullDeviceTest, PathSaysSizeLatencyAndDistribution) {
  const auto all = NullDevice::parse("null:size=8G,latency=30us,dist=lognormal");
  ASSERT_TRUE(all) << all.error().message();
  EXPECT_EQ(all->size_bytes, uint64_t{8} << 30);
  EXPECT_EQ(all->latency_ns, 30'000);
  EXPECT_EQ(all->distribution, Distribution::kLognormal);

  const auto none = NullDevice::parse("null:");
  ASSERT_TRUE(none);
  EXPECT_EQ(none->size_bytes, uint64_t{1} << 30);
  EXPECT_EQ(none->latency_ns, 0);

  EXPECT_EQ(NullDevice::parse("null:latency=2ms")->latency_ns, 2'000'000);
  EXPECT_EQ(NullDevice::parse("null:latency=1s,dist=const")->latency_ns, 1'000'000'000);
  EXPECT_EQ(NullDevice::parse("null:latency=0")->latency_ns, 0);
}

TEST(NullDeviceTest, NonsenseIsRefusedAndNamed) {
  for (const std::string_view path :
       {"null:size=0", "null:size=100", "null:size=8X", "null:size=-1",
        "null:size=", "null:latency=-1us", "null:latency=7", "null:latency=11s", "null:latency=1h",
        "null:latency=99999999999999999999", "null:dist=uniform", "null:colour=red", "null:size",
        "null:,", "null:size=8388608T"}) {
    const auto options = NullDevice::parse(path);
    ASSERT_FALSE(options) << path;
    EXPECT_EQ(options.error().kind(), loop::ErrorKind::kInvalidArgument);
    EXPECT_NE(options.error().message().find(path), std::string::npos);
    EXPECT_NE(options.error().message().find("dist=const or lognormal"), std::string::npos);
  }
}

TEST(NullDeviceTest, ConstantLatencyIsConstant) {
  const NullDevice device({.latency_ns = 30'000});
  for (uint64_t seed = 0; seed < 100; ++seed) EXPECT_EQ(device.latency_ns(seed), 30'000);
}

TEST(NullDeviceTest, LognormalLatencyHasTheMeanAndTheQuantilesItPromises) {
  const NullDevice device({.latency_ns = 30'000, .distribution = Distribution::kLognormal});
  constexpr uint64_t kSamples = 100'000;
  std::vector<int64_t> samples;
  int64_t sum = 0;
  for (uint64_t seed = 0; seed < kSamples; ++seed) {
    samples.push_back(device.latency_ns(seed));
    sum += samples.back();
  }
  std::ranges::sort(samples);
  EXPECT_NEAR(static_cast<double>(sum) / kSamples, 30'000, 300);
  EXPECT_NEAR(static_cast<double>(samples[kSamples / 2]), 0.8825 * 30'000, 300);
  EXPECT_NEAR(static_cast<double>(samples[kSamples * 99 / 100]), 2.824 * 30'000, 2'000);
  EXPECT_EQ(device.latency_ns(17), device.latency_ns(17));
}

TEST(NullDeviceTest, IsOpenedByItsPath) {
  auto pool = loop::WorkerPool::create({});
  ASSERT_TRUE(pool);
  const auto image =
      open_image({.path = "null:size=2M,latency=1us", .access = WriteAccess::kReadOnly}, **pool);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->size_bytes(), uint64_t{2} << 20);
  EXPECT_TRUE((*image)->is_read_only());
  EXPECT_TRUE((*image)->limits().discard);
  EXPECT_FALSE(open_image({.path = "null:size=2"}, **pool));
}

TEST(NullDeviceTest, OffersWhatADiskCanOffer) {
  const NullDevice device({.size_bytes = 4096, .read_only = true}, "null:size=4096");
  EXPECT_TRUE(device.limits().discard);
  EXPECT_TRUE(device.limits().write_zeroes);
  EXPECT_TRUE(device.is_read_only());
  EXPECT_EQ(device.target().null, &device);
  EXPECT_EQ(device.name(), "null:size=4096");
}

}  // namespace
}  // namespace skiff::block
