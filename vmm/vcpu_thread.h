// SPDX-License-Identifier: GPL-2.0-or-later
// VcpuThread: the thread of one vCPU. It enters the guest, serves its exits from the buses, and
// stops and goes on when the main loop asks.
//
// States, as the main loop sees them: starting -> paused <-> running -> ended. A vCPU is made
// paused. A guest that crashed or that KVM gave up on stays where it is, in whichever state, until
// it is called with a new start (call(), then resume()) or ended.
//
// With a loop of its own (Options::with_loop) the thread can be the home of queues: the loop is
// turned before each entry into the guest until it is idle, whatever happens to it ends KVM_RUN,
// and while the vCPU is out of the guest the thread sleeps in the loop.
//
// Thread: every method on the main loop's thread; counters(), loop_counters() and host_cpu() on
// any. Callbacks come on the main loop, never inside the call that asked for them. Ownership: owns
// thread, Vcpu and loop; borrows Vm, buses, events and main loop. The destructor stops the guest
// and joins the thread.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/core/bus.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/kvm/kvm_statistics.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// A vCPU that cannot go on.
struct VcpuFailure {
  uint32_t index = 0;
  bool guest_crashed = false;     // Triple fault; otherwise KVM gave up.
  bool emulation_failed = false;  // KVM met an instruction it cannot emulate.
  std::string text;               // Registers, instruction bytes, reason: several lines.
};

struct VcpuSurroundings {
  Vm& vm;
  devices::PioBus& pio;
  devices::MmioBus& mmio;
  loop::EventLoop& main_loop;
  std::function<void(const VcpuFailure&)> failed;  // On the main loop.
};

// What ended KVM_RUN on behalf of the vCPU's own loop; part of VcpuExitKind::kInterrupted.
struct VcpuLoopCounters {
  std::atomic<uint64_t> completions{0};  // Operations of the loop that had ended.
  std::atomic<uint64_t> alarms{0};       // Timers of the loop, and the guard.
  // Alarms that found a completion. At most so many were missed, that is came just before KVM_RUN:
  // one that comes while the alarm ends KVM_RUN looks the same.
  std::atomic<uint64_t> missed{0};
};

class VcpuThread {
 public:
  struct Options {
    uint32_t index = 0;
    uint32_t apic_id = 0;
    loop::CpuSet cpus;  // Empty: anywhere.
    loop::SchedPolicy sched;
    // Runs on the new thread once the vCPU exists: CPUID, first registers.
    std::function<loop::Result<void>(Vcpu&)> set_up;
    bool with_loop = false;
    // For tests: runs between the last look at the loop and KVM_RUN.
    std::function<void(loop::EventLoop&)> before_entry;
  };
  using Counters = std::array<std::atomic<uint64_t>, kVcpuExitKinds>;

  // Starts the thread and returns at once. The vCPU is made and set up over there, so that many are
  // made in parallel; wait_ready() says how that went.
  static loop::Result<std::unique_ptr<VcpuThread>> create(const VcpuSurroundings& surroundings,
                                                          Options options);
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  // Blocks until the vCPU is made and set up; for the machine's construction only.
  loop::Result<void> wait_ready();

  void resume();
  // `paused` runs once the vCPU is out of the guest with its last access completed, so that its
  // state could be saved. At once (in a later turn) if it is paused already.
  void pause(std::function<void()> paused);
  // While paused: runs `work` on the vCPU's thread, then `done` with its result on the main loop.
  void call(std::function<loop::Result<void>(Vcpu&)> work,
            std::function<void(loop::Result<void>)> done);
  // Ends the vCPU for good; `ended` (may be empty) runs when it no longer touches guest or devices.
  // Its loop goes on, so that what is homed there can be drained.
  void stop(std::function<void()> ended);

  // The vCPU's own, from wait_ready() to the destructor, which nothing that lives on it may see.
  // Null without `with_loop`, and where io_uring is refused: without it no completion would end
  // KVM_RUN.
  loop::EventLoop* loop();
  // The host's CPU that the thread was last seen on, on its way out of the guest.
  uint32_t host_cpu() const;
  // The thread itself, for comparing with pthread_self().
  pthread_t native() const;

  // Exits to userspace by VcpuExitKind.
  const Counters& counters() const;
  const VcpuLoopCounters& loop_counters() const;
  // What KVM counts, after wait_ready(); kUnsupported on kernels that do not tell.
  loop::Result<std::vector<KvmStatistic>> kernel_statistics() const;

 private:
  struct Request;
  struct Impl;
  explicit VcpuThread(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace skiff::vmm
