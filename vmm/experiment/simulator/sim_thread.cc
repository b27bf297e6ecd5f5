// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/sim_thread.h"

#include <cstdint>

namespace skiff::vmm {

void SimCore::add_ready(SimThread& thread) {
  thread.state_ = SimThread::State::kReady;
  ready_.push_back(&thread);
  if (!busy_) run_next(/*from_idle=*/true);
}

void SimCore::run_next(bool from_idle) {
  if (ready_.empty()) return;
  SimThread& thread = *ready_.front();
  ready_.pop_front();
  busy_ = true;
  // Coming from idle has its own price.
  const int64_t change_ns = from_idle || last_ == &thread ? 0 : switch_ns_;
  last_ = &thread;
  thread.state_ = SimThread::State::kRunning;
  thread.told_ = false;
  const int64_t cpu_ns = thread.work_.begin(from_idle && thread.was_asleep_);
  thread.was_asleep_ = false;
  thread.cpu_ns_ += cpu_ns + change_ns;
  events_.after(cpu_ns + change_ns, [this, &thread] { finish_turn(thread); });
}

void SimCore::finish_turn(SimThread& thread) {
  const bool more = thread.work_.end() || thread.told_;
  if (more || thread.work_.sleep_ns == 0 || !ready_.empty()) return leave(thread, more);
  thread.cpu_ns_ += thread.work_.sleep_ns;
  events_.after(thread.work_.sleep_ns, [this, &thread] { leave(thread, thread.told_); });
}

void SimCore::leave(SimThread& thread, bool more) {
  busy_ = false;
  if (more) {
    thread.state_ = SimThread::State::kReady;
    ready_.push_back(&thread);
  } else {
    thread.state_ = SimThread::State::kAsleep;
    thread.was_asleep_ = true;
  }
  run_next(/*from_idle=*/false);
}

void SimThread::tell(int64_t wake_ns) {
  if (state_ != State::kAsleep) {
    told_ = true;
    return;
  }
  state_ = State::kWaking;
  events_.after(wake_ns, [this] { core_.add_ready(*this); });
}

}  // namespace skiff::vmm
