// SPDX-License-Identifier: GPL-2.0-or-later
// Falling back to epoll where io_uring is refused, and what must abort.
#include "loop/event_loop.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "loop/result.h"
#include "loop/testing/manual_loop.h"

namespace skiff::loop {
namespace {

// From now on io_uring_setup(2) fails with `os_error` in this process.
bool refuse_io_uring(int os_error) {
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(os_error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Exits 0 if a loop made with kAuto works over epoll and said why, and kIoUring is an error.
int exit_status_without_io_uring(int os_error) {
  if (!refuse_io_uring(os_error)) return 1;
  Result<std::unique_ptr<EventLoop>> loop = EventLoop::create();
  if (!loop || (*loop)->uses_io_uring()) return 2;
  bool ran = false;
  (*loop)->post([&ran] { ran = true; });
  (*loop)->run_once(EventLoop::Wait::kUntilEvent);
  if (!ran) return 3;
  Result<std::unique_ptr<EventLoop>> forced =
      EventLoop::create({.backend = EventLoop::Backend::kIoUring});
  if (forced || forced.error().kind() != ErrorKind::kUnsupported) return 4;
  if (forced.error().os_error() != os_error) return 5;
  return 0;
}

class IoUringRefusedTest : public ::testing::TestWithParam<int> {};

TEST_P(IoUringRefusedTest, AutoFallsBackToEpollAndSaysWhy) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(_exit(exit_status_without_io_uring(GetParam())), ::testing::ExitedWithCode(0),
              "Using epoll instead of io_uring.*Setting up io_uring: ");
}

INSTANTIATE_TEST_SUITE_P(Reasons, IoUringRefusedTest, ::testing::Values(EPERM, ENOSYS));

TEST(EventLoopDeathTest, LoopIsNotTurnedFromInsideItself) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  ManualLoop manual;
  manual.loop().post([&manual] { manual.run_until_idle(); });
  EXPECT_DEATH(manual.run_until_idle(), "internal error: .*in_turn");
}

TEST(EventLoopDeathTest, TimerThatOutlivesItsLoopAborts) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  Timer timer(**loop, Priority::kDevice, [] {});
  EXPECT_DEATH(loop->reset(), "internal error: .*users");
}

TEST(ManualLoopTest, TimeStandsStillUntilItIsAdvanced) {
  ManualLoop manual;
  int runs = 0;
  Timer timer(manual, Priority::kDevice, [&runs] { ++runs; });
  timer.arm_after(1'000'000'000);
  manual.run_until_idle();
  manual.advance_ns(999'999'999);
  EXPECT_EQ(runs, 0);
  manual.advance_ns(1);
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace skiff::loop
