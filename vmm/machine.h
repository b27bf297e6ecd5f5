// SPDX-License-Identifier: GPL-2.0-or-later
// Machine: one virtual machine: its memory, devices and vCPUs, and its life from power-on to the
// end.
//
// States: paused -> running <-> paused; running -> resetting -> running; any -> ended, once.
// Requests that come while another is under way wait their turn. Thread: main loop throughout; what
// vCPU threads report is posted there. Ownership: owns everything the guest has; borrows the main
// loop. After `ended` was called it may be destroyed.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "vmm/config/machine_config.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_control.h"
#include "vmm/machine_devices.h"
#include "vmm/memory_slots.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {

// How a machine ended: the process's exit status, and for people what happened (empty: nothing to
// say).
struct MachineEnding {
  int status = 0;
  std::string message;
};

class Machine final : public MachineControl {
 public:
  // Everything is made and the kernel loaded; the guest does not run before resume(). `ended` is
  // called once, when vCPUs and devices have stopped.
  struct Surroundings {
    loop::EventLoop& main_loop;
    std::function<void(const MachineEnding&)> ended;
    std::vector<ConsolePortSpec> console_ports;  // Besides the configuration's.
    SerialTail* serial_tail = nullptr;           // COM1, when the configuration has none.
  };
  static loop::Result<std::unique_ptr<Machine>> create(const MachineConfig& config,
                                                       Surroundings surroundings);
  ~Machine() override;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  MachineStatus status() const override;
  void pause(std::function<void()> done) override;
  void resume(std::function<void()> done) override;
  void reset(std::function<void()> done) override;
  bool press_power_button() override;
  void resize_disk(std::string_view disk, std::optional<uint64_t> size_bytes,
                   std::function<void(const loop::Result<void>&)> done) override;
  loop::Result<void> set_disk_submit(std::string_view disk, std::string_view submit) override;
  loop::Result<void> set_disk_faults(std::string_view disk, std::string_view rules) override;
  void add_disk(std::string_view option,
                std::function<void(const loop::Result<std::string>&)> done) override;
  void remove_disk(std::string_view disk, const DiskRemoval& removal,
                   std::function<void(const loop::Result<void>&)> done) override;
  void quit() override;

  // The terminal that Skiff runs on has changed its size, perhaps.
  void update_terminal_size();

  // Ends the machine; the first ending counts.
  void end(MachineEnding ending);
  // The end was asked for, and the host takes its time to finish what the guest's disks have in
  // flight: perhaps for ever.
  bool is_end_overdue() const { return is_end_overdue_; }

 private:
  Machine(const MachineConfig& config, loop::EventLoop& main_loop,
          std::function<void(const MachineEnding&)> ended);
  loop::Result<void> build(Surroundings surroundings);
  loop::Result<void> build_devices(Surroundings surroundings);
  loop::Result<void> create_vcpus();
  void measure_exit(Vcpu& vcpu);
  loop::Result<void> give_vcpus_to_disks();
  loop::Result<void> start_vcpu(Vcpu& vcpu, uint32_t index);
  loop::Result<void> load_guest();

  GuestEvents guest_events();
  void on_guest_reset();
  void on_disk_stopped(std::string reason);
  void on_end_overdue();
  void on_vcpu_failed(const VcpuFailure& failure);

  // One request after the other: pause, resume, reset and the end never mix.
  void enqueue(std::function<loop::Task<void>()> request);
  loop::Task<void> serve_requests();
  loop::Task<void> do_pause(std::function<void()> done);
  loop::Task<void> do_resume(std::function<void()> done);
  loop::Task<void> do_reset(std::function<void()> done);
  loop::Task<void> do_end();
  loop::Result<std::string> add_disk_now(std::string_view option);
  loop::Task<void> visit_vcpus();
  loop::Task<void> pause_vcpus();
  loop::Task<loop::Result<void>> restart_vcpus();

  const MachineConfig config_;
  loop::EventLoop& main_loop_;
  const loop::Home home_;
  std::function<void(const MachineEnding&)> ended_;

  std::unique_ptr<KvmSystem> system_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<MemorySlots> memory_;
  std::unique_ptr<MachineDevices> devices_;
  CpuTopology topology_;
  CpuidOptions cpuid_;
  VcpuBootState boot_state_;
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;
  int64_t exit_ns_ = 0;  // Measured by the first vCPU's thread while it is made.

  MachineState state_ = MachineState::kPaused;
  MachineEnding ending_;
  bool is_ending_ = false;
  bool is_end_overdue_ = false;
  loop::Timer end_timer_;
  bool is_reset_asked_ = false;
  uint64_t resets_ = 0;
  std::string stop_reason_;
  std::deque<std::function<loop::Task<void>()>> requests_;
  bool is_serving_ = false;
  loop::TaskScope tasks_;
};

}  // namespace skiff::vmm
