// SPDX-License-Identifier: GPL-2.0-or-later
// IoThread: a thread that turns an event loop until it is destroyed.
//
// Thread: created and destroyed on any thread but its own; loop() may be posted to from any.
// Ownership: owns thread and loop. Whatever lives on the loop must be gone from it before the
// IoThread is destroyed; messages still in the mailbox then are dropped.
#pragma once

#include <memory>
#include <string>

#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"

namespace skiff::loop {

class IoThread {
 public:
  struct Options {
    std::string name = "io";
    CpuSet cpus;  // Empty: the creator's.
    SchedPolicy sched;
    EventLoop::Options loop;
  };

  // Returns once the loop runs on its thread.
  static Result<std::unique_ptr<IoThread>> create(Options options);
  ~IoThread();  // Stops the loop after its present turn and joins.
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  EventLoop& loop() { return *loop_; }

 private:
  struct Meeting;
  IoThread();
  static void serve(const EventLoop::Options& options, Meeting& meeting);

  std::unique_ptr<Meeting> meeting_;
  EventLoop* loop_ = nullptr;  // Made and destroyed by the thread.
  Thread thread_;
};

}  // namespace skiff::loop
