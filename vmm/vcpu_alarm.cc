// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/vcpu_alarm.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>

#include "loop/check.h"
#include "loop/result.h"
#include "vmm/kvm/vcpu.h"

// Older C libraries do not name the member (timer_create(2)).
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace skiff::vmm {

using loop::Error;
using loop::Result;

Result<std::unique_ptr<VcpuAlarm>> VcpuAlarm::create(Vcpu& vcpu, int signal) {
  // Its address goes to the kernel with the timer, hence before the timer.
  std::unique_ptr<VcpuAlarm> alarm(new VcpuAlarm(vcpu));
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event.sigev_value.sival_ptr = alarm.get();
  event.sigev_notify_thread_id = ::gettid();
  timer_t timer{};
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0)
    return Error::from_errno(errno, "Creating a vCPU's timer");
  alarm->timer_ = timer;
  return alarm;
}

VcpuAlarm::~VcpuAlarm() {
  if (timer_) ::timer_delete(*timer_);
}

void VcpuAlarm::set(int64_t at_ns) {
  itimerspec when{};
  when.it_value.tv_sec = at_ns / 1'000'000'000;
  when.it_value.tv_nsec = at_ns % 1'000'000'000;
  SKIFF_CHECK(::timer_settime(*timer_, TIMER_ABSTIME, &when, nullptr) == 0);
}

void VcpuAlarm::on_signal(const siginfo_t& info) {
  if (info.si_code != SI_TIMER) return;
  auto& alarm = *static_cast<VcpuAlarm*>(info.si_value.sival_ptr);
  // In this order: whoever sees the request sees the ring.
  alarm.rang_.store(true, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_release);
  alarm.vcpu_.request_exit();
}

}  // namespace skiff::vmm
