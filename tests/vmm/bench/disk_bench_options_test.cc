// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_bench_options.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "block/io_engine.h"

namespace skiff::vmm {
namespace {

using block::IoEngineKind;

DiskBenchWords words() {
  DiskBenchWords words;
  words.path = "disk.img";
  return words;
}

std::string refusal_of(const DiskBenchWords& given) {
  const auto options = parse_disk_bench(given);
  return options ? "" : options.error().message();
}

TEST(DiskBenchOptions, WithoutOptionsReadsAtRandomWithTheAutomaticEngine) {
  const auto options = parse_disk_bench(words());
  ASSERT_TRUE(options);
  EXPECT_EQ(options->pattern, AccessPattern::kRandRead);
  EXPECT_EQ(options->block_bytes, 4096u);
  EXPECT_EQ(options->depth, 1u);
  EXPECT_EQ(options->jobs, 1u);
  EXPECT_EQ(options->engines, std::vector{IoEngineKind::kAuto});
  EXPECT_EQ(options->duration_ns, 10'000'000'000);
  EXPECT_EQ(options->rounds, 1u);
  EXPECT_EQ(options->rate, 0u);
  EXPECT_FALSE(options->direct || options->overwrite || options->json);
}

TEST(DiskBenchOptions, EveryWordIsUnderstood) {
  DiskBenchWords given = words();
  given.rw = "randrw";
  given.bs = "1M";
  given.depth = "32";
  given.jobs = "4";
  given.engines = "sync,io_uring,sync";
  given.duration = "0.5";
  given.rounds = "7";
  given.rate = "1000";
  given.share = "20000";
  given.size = "2g";
  given.iops = "5000";
  given.bps = "100m";
  given.plot = "out.svg";
  const auto options = parse_disk_bench(given);
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->pattern, AccessPattern::kRandRw);
  EXPECT_EQ(options->block_bytes, 1u << 20);
  EXPECT_EQ(options->depth, 32u);
  EXPECT_EQ(options->jobs, 4u);
  EXPECT_EQ(options->engines,
            (std::vector{IoEngineKind::kSync, IoEngineKind::kIoUring, IoEngineKind::kSync}));
  EXPECT_EQ(options->duration_ns, 500'000'000);
  EXPECT_EQ(options->rounds, 7u);
  EXPECT_EQ(options->rate, 1000u);
  EXPECT_EQ(options->share_rate, 20'000u);
  EXPECT_EQ(options->size_bytes, uint64_t{2} << 30);
  EXPECT_EQ(options->throttle.requests.total, 5000u);
  EXPECT_EQ(options->throttle.bytes.total, uint64_t{100} << 20);
}

TEST(DiskBenchOptions, EveryEngineHasItsName) {
  for (const IoEngineKind kind : block::kAllEngineKinds) {
    DiskBenchWords given = words();
    given.engines = block::engine_name(kind);
    const auto options = parse_disk_bench(given);
    ASSERT_TRUE(options);
    EXPECT_EQ(options->engines, std::vector{kind});
  }
}

TEST(DiskBenchOptions, SeveralEnginesTakeTurnsUnlessToldOtherwise) {
  DiskBenchWords given = words();
  given.engines = "sync,threads";
  EXPECT_GT(parse_disk_bench(given)->rounds, 1u);
  given.rounds = "1";
  EXPECT_EQ(parse_disk_bench(given)->rounds, 1u);
}

struct BadWord {
  std::string DiskBenchWords::* option;
  std::string value;
  std::string named;
};

class DiskBenchBadWord : public ::testing::TestWithParam<BadWord> {};

TEST_P(DiskBenchBadWord, IsRefusedWithItsNameAndWhatIsAllowed) {
  DiskBenchWords given = words();
  given.*GetParam().option = GetParam().value;
  const std::string message = refusal_of(given);
  EXPECT_NE(message.find("--" + GetParam().named), std::string::npos) << message;
  EXPECT_NE(message.find("allowed"), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, DiskBenchBadWord,
    ::testing::Values(
        BadWord{&DiskBenchWords::rw, "readwrite", "rw"}, BadWord{&DiskBenchWords::rw, "", "rw"},
        BadWord{&DiskBenchWords::bs, "0", "bs"}, BadWord{&DiskBenchWords::bs, "1000", "bs"},
        BadWord{&DiskBenchWords::bs, "-4k", "bs"}, BadWord{&DiskBenchWords::bs, "4kk", "bs"},
        BadWord{&DiskBenchWords::bs, "1G", "bs"},
        BadWord{&DiskBenchWords::bs, "18446744073709551616", "bs"},
        BadWord{&DiskBenchWords::depth, "0", "depth"},
        BadWord{&DiskBenchWords::depth, "4097", "depth"},
        BadWord{&DiskBenchWords::depth, "x", "depth"}, BadWord{&DiskBenchWords::jobs, "0", "jobs"},
        BadWord{&DiskBenchWords::jobs, "65", "jobs"},
        BadWord{&DiskBenchWords::engines, "iouring", "engine"},
        BadWord{&DiskBenchWords::engines, "sync,", "engine"},
        BadWord{&DiskBenchWords::engines, "", "engine"},
        BadWord{&DiskBenchWords::duration, "0", "duration"},
        BadWord{&DiskBenchWords::duration, "-1", "duration"},
        BadWord{&DiskBenchWords::duration, "nan", "duration"},
        BadWord{&DiskBenchWords::duration, "inf", "duration"},
        BadWord{&DiskBenchWords::duration, "5s", "duration"},
        BadWord{&DiskBenchWords::duration, "", "duration"},
        BadWord{&DiskBenchWords::rounds, "0", "rounds"},
        BadWord{&DiskBenchWords::rate, "0", "rate"}, BadWord{&DiskBenchWords::rate, "1e6", "rate"},
        BadWord{&DiskBenchWords::share, "-1", "share"},
        BadWord{&DiskBenchWords::size, "512", "size"}, BadWord{&DiskBenchWords::iops, "0", "iops"},
        BadWord{&DiskBenchWords::bps, "511", "bps"},
        BadWord{&DiskBenchWords::plot, "disk.img", "plot"}));

TEST(DiskBenchOptions, TooMuchMemoryForBuffersIsRefused) {
  DiskBenchWords given = words();
  given.bs = "1M";
  given.depth = "512";
  given.jobs = "2";
  EXPECT_EQ(refusal_of(given), "");
  given.jobs = "3";
  EXPECT_NE(refusal_of(given).find("lower one"), std::string::npos);
}

TEST(DiskBenchOptions, ARateThatLeavesAJobNothingIsRefused) {
  DiskBenchWords given = words();
  given.jobs = "4";
  given.rate = "3";
  EXPECT_NE(refusal_of(given).find("--rate 3"), std::string::npos);
}

}  // namespace
}  // namespace skiff::vmm
