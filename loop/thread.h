// SPDX-License-Identifier: GPL-2.0-or-later
// Thread: a named thread with its CPUs and scheduling policy, joined when it goes.
//
// Thread: create() from any; join() and the destructor from one that is not the thread itself.
// Ownership: owns the thread; movable.
//
//   Result<Thread> thread = Thread::create({.name = "io0", .cpus = *cpus}, [&] { serve(); });
#pragma once

#include <pthread.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/result.h"

namespace skiff::loop {

// How the kernel schedules a thread (sched(7)).
struct SchedPolicy {
  enum class Kind : uint8_t { kOther, kFifo, kRr, kBatch, kIdle };
  Kind kind = Kind::kOther;
  int priority = 0;  // 1 to 99 for kFifo and kRr, else 0.

  // "other", "batch", "idle", "fifo:10", "rr:10".
  static Result<SchedPolicy> parse(std::string_view text);
  std::string to_string() const;  // The form that parse() takes.
  // Fails with kPermission, saying what to raise, when the process may not.
  Result<void> apply_to_current_thread() const;

  friend bool operator==(const SchedPolicy&, const SchedPolicy&) = default;
};

class Thread {
 public:
  struct Options {
    std::string name;   // The first 15 bytes are shown by the system.
    CpuSet cpus;        // Empty: the creator's.
    SchedPolicy sched;  // Never inherited.
    // All signals are blocked but these: only a vCPU's kick wants one.
    std::vector<int> unblocked_signals;
    size_t stack_bytes = size_t{1} << 20;
  };

  // Returns once affinity and policy are in force; fails if either was refused, `body` not run
  // then.
  static Result<Thread> create(Options options, std::function<void()> body);

  Thread() = default;  // No thread.
  Thread(Thread&& other) noexcept : thread_(std::exchange(other.thread_, pthread_t{})) {}
  Thread& operator=(Thread&& other) noexcept;
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  ~Thread() { join(); }

  void join();  // Does nothing the second time.
  bool joinable() const { return thread_ != pthread_t{}; }
  pthread_t native() const { return thread_; }  // For pthread_kill(); valid until joined.

 private:
  explicit Thread(pthread_t thread) : thread_(thread) {}
  pthread_t thread_{};
};

}  // namespace skiff::loop
