// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/child_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMinuteNs = 60'000'000'000;

class ChildCommandTest : public ::testing::Test {
 protected:
  ChildOutcome run(const std::vector<std::string>& words, int64_t timeout_ns = kMinuteNs) {
    auto child =
        ChildCommand::start(*loop_, words, timeout_ns, [this](ChildCommand&) { loop_->stop(); });
    EXPECT_TRUE(child) << child.error().message();
    if (!child) return {};
    loop_->run();
    return (*child)->outcome();
  }
  ChildOutcome shell(const std::string& script, int64_t timeout_ns = kMinuteNs) {
    return run({"sh", "-c", script}, timeout_ns);
  }
  std::unique_ptr<loop::EventLoop> loop_ = *loop::EventLoop::create();
};

TEST_F(ChildCommandTest, WhatItWritesAndHowItEndsIsTold) {
  const ChildOutcome outcome = shell("echo out; echo err >&2; exit 3");
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.out, "out\n");
  EXPECT_EQ(outcome.err, "err\n");
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_GT(outcome.wall_ns, 0);
}

TEST_F(ChildCommandTest, MoreThanAPipeHoldsIsReadWhole) {
  EXPECT_EQ(shell("head -c 3000000 /dev/zero").out.size(), 3'000'000u);
}

TEST_F(ChildCommandTest, OfErrorsTheLastPartIsKept) {
  const ChildOutcome outcome = shell("seq 1 10000 >&2");
  EXPECT_LE(outcome.err.size(), 4096u);
  EXPECT_THAT(outcome.err, HasSubstr("10000\n"));
}

TEST_F(ChildCommandTest, AProgramThatIsNotThereEndsWith127) {
  const ChildOutcome outcome = run({"/no/such/program"});
  EXPECT_EQ(outcome.status, 127);
  EXPECT_THAT(outcome.err, HasSubstr("does not run"));
}

TEST_F(ChildCommandTest, ASignalIsToldAsTheShellDoes) {
  EXPECT_EQ(shell("kill -9 $$").status, 137);
}

TEST_F(ChildCommandTest, WhoTakesTooLongIsAskedToEnd) {
  const ChildOutcome outcome = shell("sleep 1000", 50'000'000);
  EXPECT_TRUE(outcome.timed_out);
  EXPECT_EQ(outcome.status, 128 + SIGTERM);
}

TEST_F(ChildCommandTest, WhoDoesNotListenIsKilledWithItsOwnChildren) {
  const ChildOutcome outcome =
      shell("trap '' TERM; sleep 1000 & echo $!; while true; do sleep 1; done", 50'000'000);
  EXPECT_TRUE(outcome.timed_out);
  EXPECT_EQ(outcome.status, 128 + SIGKILL);
  const auto grandchild = static_cast<pid_t>(std::atoi(outcome.out.c_str()));
  ASSERT_GT(grandchild, 0);
  const loop::UniqueFd grandchild_fd(static_cast<int>(::syscall(SYS_pidfd_open, grandchild, 0)));
  if (!grandchild_fd) return;  // Gone without a trace.
  pollfd ended = {grandchild_fd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 10'000), 1);
}

TEST_F(ChildCommandTest, ADescendantThatHoldsThePipeDoesNotHoldTheEndUp) {
  const ChildOutcome outcome = shell("sleep 1000 & echo done");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "done\n");
}

TEST_F(ChildCommandTest, ItHasNoInputAndDefaultSignals) {
  EXPECT_EQ(shell("cat; grep -E 'SigBlk|SigIgn' /proc/self/status | grep -v 0000000000000000").out,
            "");
}

TEST_F(ChildCommandTest, DestroyedItLeavesNoProcess) {
  auto child = ChildCommand::start(*loop_, {"sleep", "1000"}, kMinuteNs, [](ChildCommand&) {});
  ASSERT_TRUE(child);
  const pid_t pid = (*child)->pid();
  child->reset();
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

}  // namespace
}  // namespace skiff::vmm
