// SPDX-License-Identifier: GPL-2.0-or-later
// VcpuAlarm: gets a vCPU's thread out of KVM_RUN at a given time, wherever it is by then.
//
// A POSIX timer that signals the thread. The signal's handler requests the exit, so that a signal
// which comes on the way to KVM_RUN ends it too. A completion on the thread's ring cannot do that:
// between the last look at the ring and KVM_RUN it is delivered, and KVM_RUN begins.
// Thread: made, set and asked on the vCPU's; destroyed when that has ended. Ownership: owns the
// timer, borrows the vCPU.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>

#include "loop/result.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

class VcpuAlarm {
 public:
  // For the calling thread, with the kick's `signal`, whose handler calls on_signal(). Fails when
  // the process has no more timers or queued signals (ulimit -i).
  static loop::Result<std::unique_ptr<VcpuAlarm>> create(Vcpu& vcpu, int signal);
  ~VcpuAlarm();
  VcpuAlarm(const VcpuAlarm&) = delete;
  VcpuAlarm& operator=(const VcpuAlarm&) = delete;

  // Replaces the time set before. Of CLOCK_MONOTONIC; one that is past rings at once.
  void set(int64_t at_ns);
  // True if it rang since the last call. After clear_exit_request(), or a ring could be lost.
  bool take_ring() {
    if (!rang_.load(std::memory_order_relaxed)) return false;
    rang_.store(false, std::memory_order_relaxed);
    return true;
  }

  // In the signal's handler; does nothing when it is not an alarm's.
  static void on_signal(const siginfo_t& info);

 private:
  explicit VcpuAlarm(Vcpu& vcpu) : vcpu_(vcpu) {}

  Vcpu& vcpu_;
  std::optional<timer_t> timer_;
  std::atomic<bool> rang_{false};
};

}  // namespace skiff::vmm
