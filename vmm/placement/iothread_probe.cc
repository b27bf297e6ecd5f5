// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/iothread_probe.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <utility>

#include "loop/event_loop.h"
#include "vmm/placement/wake_probe.h"

namespace skiff::vmm {
namespace {

int64_t thread_cpu_time_ns() {
  timespec time = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void IothreadProbe::calibrate_once() {
  if (std::exchange(is_calibrated_, true)) return;
  const auto self = shared_from_this();
  const std::weak_ptr<IothreadProbe> weak = self;
  measure_wake(
      {.from = &main_loop_, .to = &thread_, .guard = self, .measured = [weak](int64_t median_ns) {
         if (const auto probe = weak.lock()) probe->wake_ns_ = median_ns;
       }});
}

void IothreadProbe::ask() {
  if (is_asked_) {
    if (!answered_.load(std::memory_order_acquire)) return;  // Busy, or not woken yet.
    const int64_t cpu_time_ns = cpu_time_ns_.load(std::memory_order_relaxed);
    const int64_t wall_ns = wall_ns_.load(std::memory_order_relaxed);
    if (last_cpu_time_ns_ >= 0 && wall_ns > last_wall_ns_)
      load_ = std::clamp(static_cast<double>(cpu_time_ns - last_cpu_time_ns_) /
                             static_cast<double>(wall_ns - last_wall_ns_),
                         0.0, 1.0);
    last_cpu_time_ns_ = cpu_time_ns;
    last_wall_ns_ = wall_ns;
  }
  is_asked_ = true;
  answered_.store(false, std::memory_order_relaxed);
  thread_.post([self = shared_from_this()] {
    self->cpu_.store(static_cast<uint32_t>(std::max(::sched_getcpu(), 0)),
                     std::memory_order_relaxed);
    self->cpu_time_ns_.store(thread_cpu_time_ns(), std::memory_order_relaxed);
    self->wall_ns_.store(self->thread_.now_ns(), std::memory_order_relaxed);
    self->answered_.store(true, std::memory_order_release);
  });
}

std::optional<uint32_t> IothreadProbe::cpu() const {
  if (last_cpu_time_ns_ < 0) return std::nullopt;
  return cpu_.load(std::memory_order_relaxed);
}

}  // namespace skiff::vmm
