// SPDX-License-Identifier: GPL-2.0-or-later
// IothreadProbe: where an IOThread runs, how busy it is, and how long it takes to wake.
//
// Thread: the main loop, but for what is stated. Ownership: shared with the messages it sends to
// the IOThread; borrows both loops.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "loop/event_loop.h"

namespace skiff::vmm {

class IothreadProbe : public std::enable_shared_from_this<IothreadProbe> {
 public:
  IothreadProbe(loop::EventLoop& main_loop, loop::EventLoop& thread)
      : main_loop_(main_loop), thread_(thread) {}

  // Begins to measure the wake cost, if that was not done yet; it is known some milliseconds later.
  void calibrate_once();
  // Asks the thread; the answer is in what the next call finds.
  void ask();

  std::optional<uint32_t> cpu() const;          // Nothing before the first answer.
  double load() const { return load_; }         // 0 to 1, between the last two answers.
  int64_t wake_ns() const { return wake_ns_; }  // 0: not known yet.

 private:
  loop::EventLoop& main_loop_;
  loop::EventLoop& thread_;
  int64_t wake_ns_ = 0;
  double load_ = 0;
  int64_t last_cpu_time_ns_ = -1;
  int64_t last_wall_ns_ = 0;
  // Written on the IOThread, in this order; `answered_` says that the others are there.
  std::atomic<uint32_t> cpu_{0};
  std::atomic<int64_t> cpu_time_ns_{0};
  std::atomic<int64_t> wall_ns_{0};
  std::atomic<bool> answered_{false};
  bool is_asked_ = false;
  bool is_calibrated_ = false;
};

}  // namespace skiff::vmm
