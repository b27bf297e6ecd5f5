// SPDX-License-Identifier: GPL-2.0-or-later
// ChildCommand: a program that runs beside the event loop, with what it writes, until it ends or
// its time is over.
//
// It gets a process group of its own, so that a Ctrl-C at the terminal is its parent's to handle,
// and so that whatever it started goes with it; and it dies with its parent. Thread: the loop's.
// Ownership: owns the process; its destructor kills it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {

struct ChildOutcome {
  int status = -1;  // Exit status, or 128 + the signal that ended it.
  bool timed_out = false;
  bool too_long = false;  // It wrote more than is read.
  std::string out;
  std::string err;  // The last part.
  int64_t wall_ns = 0;
  int64_t cpu_ns = 0;  // Of the process and its own children that it waited for.
};

class ChildCommand {
 public:
  // `words` begin with the program: a path, or a name for PATH. A program that cannot be started
  // ends with status 127. `on_end` runs on the loop and may destroy the command.
  static loop::Result<std::unique_ptr<ChildCommand>> start(
      loop::EventLoop& loop, const std::vector<std::string>& words, int64_t timeout_ns,
      std::function<void(ChildCommand&)> on_end);
  ~ChildCommand();
  ChildCommand(const ChildCommand&) = delete;
  ChildCommand& operator=(const ChildCommand&) = delete;

  pid_t pid() const { return pid_; }  // And the number of its process group.
  // Asks it to end, and makes it end two seconds later.
  void end();
  const ChildOutcome& outcome() const { return outcome_; }

 private:
  struct Pipe {
    loop::UniqueFd fd;
    std::unique_ptr<loop::FdWatcher> watcher;
  };

  ChildCommand(loop::EventLoop& loop, std::function<void(ChildCommand&)> on_end);
  void watch(Pipe& pipe, std::string& into, bool keep_end_only);
  // False at the end of what it writes.
  bool read_some(Pipe& pipe, std::string& into, bool keep_end_only);
  void on_exit();

  loop::EventLoop& loop_;
  std::function<void(ChildCommand&)> on_end_;
  pid_t pid_ = -1;
  int64_t start_ns_ = 0;
  bool reaped_ = false;
  bool ending_ = false;
  ChildOutcome outcome_;
  Pipe out_;
  Pipe err_;
  Pipe exit_;  // A pidfd.
  loop::Timer timeout_;
};

}  // namespace skiff::vmm
