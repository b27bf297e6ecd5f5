// SPDX-License-Identifier: GPL-2.0-or-later
// run_task(): starts a task and says whether it ended without waiting for anything.
//
// Thread: the test's, where the task's loop is or has not turned yet.
#pragma once

#include <coroutine>
#include <cstdlib>
#include <utility>

#include "loop/task.h"

namespace skiff::devices {
namespace run_task_detail {

struct Driver {
  struct promise_type {
    Driver get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::abort(); }
  };
};

inline Driver drive(loop::Task<void> task, bool& ended) {
  co_await std::move(task);
  ended = true;
}

}  // namespace run_task_detail

// A task that is still waiting afterwards is leaked: use it for those that never wait.
inline bool run_task(loop::Task<void> task) {
  bool ended = false;
  run_task_detail::drive(std::move(task), ended);
  return ended;
}

// For one that waits: `ended`, which outlives it, says when it is done.
inline void start_task(loop::Task<void> task, bool& ended) {
  run_task_detail::drive(std::move(task), ended);
}

}  // namespace skiff::devices
