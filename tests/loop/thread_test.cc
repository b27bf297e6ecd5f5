// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/thread.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <string>

#include "loop/result.h"

namespace skiff::loop {
namespace {

TEST(SchedPolicyTest, EveryFormIsReadAndWrittenBack) {
  for (const char* text : {"other", "batch", "idle", "fifo:1", "fifo:99", "rr:10"}) {
    Result<SchedPolicy> policy = SchedPolicy::parse(text);
    ASSERT_TRUE(policy) << text;
    EXPECT_EQ(policy->to_string(), text);
  }
  EXPECT_EQ(*SchedPolicy::parse("fifo:10"), (SchedPolicy{SchedPolicy::Kind::kFifo, 10}));
}

TEST(SchedPolicyTest, NonsenseIsRefusedWithWhatIsAllowed) {
  for (const char* text : {"", "fifo", "fifo:", "fifo:0", "fifo:100", "fifo:-1", "fifo:1x",
                           "other:1", "idle:", "FIFO:1", "deadline"}) {
    Result<SchedPolicy> policy = SchedPolicy::parse(text);
    ASSERT_FALSE(policy) << text;
    EXPECT_EQ(policy.error().kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(policy.error().message().find("fifo:N"), std::string::npos);
  }
}

TEST(ThreadTest, HasItsNameAndBlocksEverySignalButThoseAskedFor) {
  std::string name;
  sigset_t blocked;
  Result<Thread> thread =
      Thread::create({.name = "a-name-longer-than-15", .unblocked_signals = {SIGUSR1}}, [&] {
        std::array<char, 16> buffer{};
        pthread_getname_np(pthread_self(), buffer.data(), buffer.size());
        name = buffer.data();
        pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
      });
  ASSERT_TRUE(thread);
  thread->join();
  EXPECT_EQ(name, "a-name-longer-t");
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 1);
  EXPECT_EQ(sigismember(&blocked, SIGINT), 1);
  EXPECT_EQ(sigismember(&blocked, SIGRTMIN), 1);
  EXPECT_EQ(sigismember(&blocked, SIGUSR1), 0);
}

TEST(ThreadTest, DestructorAndAssignmentJoin) {
  std::atomic<int> ended{0};
  {
    Thread thread = *Thread::create({.name = "one"}, [&ended] { ++ended; });
    thread = *Thread::create({.name = "two"}, [&ended] { ++ended; });
    EXPECT_GE(ended, 1);
    EXPECT_TRUE(thread.joinable());
  }
  EXPECT_EQ(ended, 2);
}

TEST(ThreadTest, BatchPolicyIsInForceWhenTheBodyRuns) {
  int policy = -1;
  Result<Thread> thread = Thread::create({.name = "batch", .sched = {SchedPolicy::Kind::kBatch, 0}},
                                         [&policy] { policy = sched_getscheduler(0); });
  ASSERT_TRUE(thread) << thread.error().message();
  thread->join();
  EXPECT_EQ(policy, SCHED_BATCH);
}

TEST(ThreadTest, RealTimePolicyIsInForceAndNotInherited) {
  int outer = -1;
  int inner = -1;
  Result<Thread> thread =
      Thread::create({.name = "rt", .sched = {SchedPolicy::Kind::kFifo, 1}}, [&] {
        outer = sched_getscheduler(0);
        Thread::create({.name = "child"}, [&] { inner = sched_getscheduler(0); })->join();
      });
  if (!thread) GTEST_SKIP() << thread.error().message();
  thread->join();
  EXPECT_EQ(outer, SCHED_FIFO);
  EXPECT_EQ(inner, SCHED_OTHER);
}

// In a child without capabilities.
void ask_for_real_time() {
  const rlimit none_allowed{.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_RTPRIO, &none_allowed);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> none{};
  syscall(SYS_capset, &header, none.data());
  Result<Thread> thread =
      Thread::create({.name = "vcpu0", .sched = {SchedPolicy::Kind::kFifo, 10}}, [] { _exit(1); });
  if (thread) _exit(2);
  fprintf(stderr, "%s\n", thread.error().message().c_str());
  _exit(thread.error().kind() == ErrorKind::kPermission ? 0 : 3);
}

TEST(ThreadTest, RefusedPolicySaysWhatItNeedsAndTheBodyDoesNotRun) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(ask_for_real_time(), ::testing::ExitedWithCode(0),
              "Thread vcpu0: Setting scheduling policy fifo:10.*CAP_SYS_NICE.*ulimit -r");
}

}  // namespace
}  // namespace skiff::loop
