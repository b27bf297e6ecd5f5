// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ProbeTest, EachRefusalOfIoUringSaysWhatToDo) {
  EXPECT_THAT(io_uring_refusal(EPERM, 2), HasSubstr("sysctl -w kernel.io_uring_disabled=0"));
  EXPECT_THAT(io_uring_refusal(EPERM, 1), HasSubstr("kernel.io_uring_group"));
  EXPECT_THAT(io_uring_refusal(EPERM, 0), HasSubstr("seccomp"));
  EXPECT_THAT(io_uring_refusal(EPERM, -1), HasSubstr("seccomp"));
  EXPECT_THAT(io_uring_refusal(ENOSYS, -1), HasSubstr("no io_uring"));
  EXPECT_THAT(io_uring_refusal(ENOMEM, 0), HasSubstr("Cannot allocate memory"));
}

// Makes io_uring_setup() fail as containers do, for the rest of this process's life.
void refuse_io_uring() {
  std::array<sock_filter, 4> filter = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program = {.len = filter.size(), .filter = filter.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    std::_Exit(2);
}

TEST(ProbeDeathTest, WithIoUringRefusedTheOtherEnginesAreTriedAndTheReasonIsGiven) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        refuse_io_uring();
        const NullDevice device({});
        const auto finding = probe_engines(device);
        if (!finding || finding->io_uring.usable || finding->io_uring.why_not.empty())
          std::_Exit(3);
        if (finding->choice.find("io_uring: ") == std::string::npos) std::_Exit(4);
        for (const EngineFinding& engine : finding->engines) {
          if (engine.usable == (engine.kind == IoEngineKind::kIoUring)) std::_Exit(5);
        }
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(ProbeTest, IoUringIsUsableWhereALoopCanHaveARing) {
  const auto loop = loop::EventLoop::create({.backend = loop::EventLoop::Backend::kIoUring});
  const IoUringFinding finding = probe_io_uring();
  EXPECT_EQ(finding.usable, loop.has_value());
  EXPECT_EQ(finding.why_not.empty(), finding.usable);
  EXPECT_THAT(finding.missing_ops, testing::IsEmpty());
}

TEST(ProbeTest, LooksAtAFileWithoutChangingIt) {
  const TempDir dir;
  const auto content = pattern(300 * 1024);
  const std::string path = dir.make_file("file", content);
  struct stat before = {};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  const auto device = FileDevice::open({.path = path, .access = WriteAccess::kReadOnly});
  ASSERT_TRUE(device) << device.error().message();
  const auto finding = probe_engines(**device);
  ASSERT_TRUE(finding) << finding.error().message();
  struct stat after = {};
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  EXPECT_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
  EXPECT_EQ(dir.read_file("file"), content);
  ASSERT_EQ(finding->engines.size(), kAllEngineKinds.size() - 1);  // All but auto.
  for (const EngineFinding& engine : finding->engines) {
    EXPECT_EQ(engine.why_not.empty(), engine.usable);
    EXPECT_EQ(engine.usable, engine.p50_ns > 0);
    EXPECT_GE(engine.worst_ns, engine.p50_ns);
    if (engine.kind == IoEngineKind::kLinuxAio) {
      EXPECT_THAT(engine.why_not, HasSubstr("direct"));
    }
  }
  EXPECT_NE(finding->discard, Answer::kUnknown);
  EXPECT_GT(finding->wake_ns, 0);
  // Both are signs of the same.
  if (finding->punts != Answer::kUnknown) {
    EXPECT_EQ(finding->punts == Answer::kYes, finding->nowait == Answer::kNo);
  }
}

TEST(ProbeTest, AFileSmallerThanAReadIsReadAsFarAsItGoes) {
  const TempDir dir;
  const auto device =
      FileDevice::open({.path = dir.make_sparse("file", 512), .access = WriteAccess::kReadOnly});
  ASSERT_TRUE(device) << device.error().message();
  const auto finding = probe_engines(**device);
  ASSERT_TRUE(finding) << finding.error().message();
  EXPECT_TRUE(
      std::ranges::find(finding->engines, IoEngineKind::kSync, &EngineFinding::kind)->usable);
}

DiskFinding measured(int64_t sync_ns, int64_t ring_ns) {
  DiskFinding finding;
  finding.engines = {
      {.kind = IoEngineKind::kSync, .usable = true, .p50_ns = sync_ns},
      {.kind = IoEngineKind::kThreads, .usable = true, .p50_ns = 100'000},
      {.kind = IoEngineKind::kIoUring, .usable = ring_ns > 0, .p50_ns = ring_ns},
  };
  finding.io_uring = {.usable = ring_ns > 0, .why_not = "no ring here"};
  return finding;
}

TEST(ProbeTest, ChoiceFollowsWhatWasMeasuredAndSaysSo) {
  EXPECT_THAT(
      explain_choice(measured(1'000, 5'200)),
      testing::AllOf(HasSubstr("blocking calls"), HasSubstr("1.0 us"), HasSubstr("5.2 us")));
  EXPECT_THAT(explain_choice(measured(64'000, 63'000)), testing::StartsWith("io_uring (63.0 us"));
  EXPECT_THAT(explain_choice(measured(900'000, 990'000)), Not(HasSubstr("blocking calls")));
  EXPECT_THAT(explain_choice(measured(150'000, 0)),
              testing::AllOf(testing::StartsWith("threads"), HasSubstr("no ring here")));
  EXPECT_THAT(explain_choice(DiskFinding{}), HasSubstr("none"));
}

}  // namespace
}  // namespace skiff::block
