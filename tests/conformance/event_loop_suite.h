// SPDX-License-Identifier: GPL-2.0-or-later
// The event loops that the conformance suite runs on, and what its parts share.
//
// Thread: the test's. Ownership: a test owns its loops.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

// Both ends non-blocking.
struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }
  void write_byte() const { EXPECT_EQ(::write(write_end.get(), "x", 1), 1); }
  void read_byte() const {
    char byte = 0;
    EXPECT_EQ(::read(read_end.get(), &byte, 1), 1);
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

struct LoopKind {
  const char* name;
  EventLoop::Backend backend;
  EventLoop::TaskWork task_work;
};

inline constexpr std::array<LoopKind, 3> kLoopKinds = {{
    {"Epoll", EventLoop::Backend::kEpoll, EventLoop::TaskWork::kDeferred},
    {"IoUringDeferred", EventLoop::Backend::kIoUring, EventLoop::TaskWork::kDeferred},
    {"IoUringInterrupt", EventLoop::Backend::kIoUring, EventLoop::TaskWork::kInterrupt},
}};

class EventLoopTest : public ::testing::TestWithParam<LoopKind> {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<EventLoop>> made = make(nullptr);
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    real_loop_ = *std::move(made);
    manual_loop_ = *make(&clock_);
  }

  static Result<std::unique_ptr<EventLoop>> make(const Clock* clock) {
    return EventLoop::create(
        {.backend = GetParam().backend, .task_work = GetParam().task_work, .clock = clock});
  }

  static void run_until_idle(EventLoop& loop) {
    while (loop.run_once(EventLoop::Wait::kNo)) {
    }
  }

  static Thread start_thread(std::function<void()> body) {
    Result<Thread> thread = Thread::create({.name = "test"}, std::move(body));
    EXPECT_TRUE(thread.has_value());
    return *std::move(thread);
  }

  EventLoop& loop() { return *real_loop_; }
  EventLoop& manual() { return *manual_loop_; }  // Its time stands still but for clock_.

  ManualClock clock_;
  std::unique_ptr<EventLoop> real_loop_;
  std::unique_ptr<EventLoop> manual_loop_;
};

inline std::string loop_kind_name(const ::testing::TestParamInfo<LoopKind>& kind) {
  return kind.param.name;
}

}  // namespace skiff::loop
