// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/machine.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/filters/fault_rules.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "vmm/cli/exit_status.h"
#include "vmm/config/config_file.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"
#include "vmm/cpuid.h"
#include "vmm/disk_hotplug.h"
#include "vmm/disk_removal.h"
#include "vmm/doctor.h"
#include "vmm/exit_probe.h"
#include "vmm/guest_loader.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_control.h"
#include "vmm/machine_devices.h"
#include "vmm/memory_slots.h"
#include "vmm/placement/queue_placer.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {
namespace {

using loop::Result;
using loop::Task;

// Disks end what they have in flight within this time, or the user hears of it.
constexpr int64_t kEndOverdueNs = 3'000'000'000;

// With a process that serves a disk.
bool shares_memory(const MachineConfig& config) {
  return std::ranges::any_of(config.disks,
                             [](const DiskConfig& disk) { return !disk.vhost_user.empty(); });
}

// Waits for one callback. Lives in the coroutine's frame.
class CallbackAwaiter {
 public:
  explicit CallbackAwaiter(std::function<void(std::function<void()>)> start)
      : start_(std::move(start)) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    start_([waiter] { waiter.resume(); });
  }
  void await_resume() const noexcept {}

 private:
  std::function<void(std::function<void()>)> start_;
};

}  // namespace

Machine::Machine(const MachineConfig& config, loop::EventLoop& main_loop,
                 std::function<void(const MachineEnding&)> ended)
    : config_(config),
      main_loop_(main_loop),
      home_(main_loop),
      ended_(std::move(ended)),
      end_timer_(main_loop, loop::Priority::kService, [this] { on_end_overdue(); }),
      tasks_(main_loop) {}

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config,
                                                 Surroundings surroundings) {
  std::unique_ptr<Machine> machine(
      new Machine(config, surroundings.main_loop, std::move(surroundings.ended)));
  SKIFF_RETURN_IF_ERROR(machine->build(std::move(surroundings)));
  return machine;
}

// vCPUs first: nobody may touch devices or memory while those go.
Machine::~Machine() { vcpus_.clear(); }

// The one readable order in which a machine comes to be.
Result<void> Machine::build(Surroundings surroundings) {
  auto system = KvmSystem::open();
  if (!system) return system.error();
  system_ = std::make_unique<KvmSystem>(*std::move(system));
  auto vm = Vm::create(*system_);
  if (!vm) return vm.error();
  vm_ = *std::move(vm);
  auto memory = MemorySlots::create(*vm_, {.size_bytes = config_.memory.size_bytes,
                                           .prealloc = config_.memory.prealloc,
                                           .lock = config_.memory.mlock,
                                           .shared = shares_memory(config_)});
  if (!memory) return memory.error();
  memory_ = *std::move(memory);
  SKIFF_RETURN_IF_ERROR(vm_->add_interrupt_controllers());

  auto topology = make_topology(topology_of(config_.cpus));
  if (!topology) return topology.error();
  topology_ = *topology;
  if (topology_.cpus > system_->max_cpus())
    return loop::Error(loop::ErrorKind::kUnsupported,
                       fmt::format("--cpus {}: this host's KVM runs at most {} in one machine",
                                   topology_.cpus, system_->max_cpus()));
  SKIFF_RETURN_IF_ERROR(build_devices(std::move(surroundings)));
  SKIFF_RETURN_IF_ERROR(load_guest());
  return create_vcpus();
}

Result<void> Machine::build_devices(Surroundings surroundings) {
  MachineDevices::Surroundings parts{*vm_, memory_->memory(), main_loop_, guest_events()};
  parts.quit = [this] { quit(); };
  parts.disk_stopped = [this](std::string reason) { on_disk_stopped(std::move(reason)); };
  parts.visit_vcpus = [this] { enqueue([this] { return visit_vcpus(); }); };
  for (uint32_t index = 0; index < topology_.cpus; ++index)
    parts.apic_ids.push_back(apic_id_of(topology_, index));
  parts.physical_address_bits = physical_address_bits(system_->supported_cpuid());
  parts.shared_memory = memory_->shared_regions();
  parts.console_ports = std::move(surroundings.console_ports);
  parts.serial_tail = surroundings.serial_tail;
  auto devices = MachineDevices::create(config_, std::move(parts));
  if (!devices) return devices.error();
  devices_ = *std::move(devices);
  return {};
}

GuestEvents Machine::guest_events() {
  // All of these come from vCPU threads.
  const auto on_main = [this](auto action) { main_loop_.post([this, action] { action(*this); }); };
  return {
      .power_off = [on_main] { on_main([](Machine& m) { m.end({kExitPoweredOff, ""}); }); },
      .reset = [on_main] { on_main([](Machine& m) { m.on_guest_reset(); }); },
      .panicked =
          [on_main] {
            on_main([](Machine& m) { m.end({kExitGuestCrashed, "The guest's kernel panicked"}); });
          },
      .debug_exit =
          [on_main](uint32_t value) {
            on_main([value](Machine& m) { m.end({debug_exit_status(value), ""}); });
          },
  };
}

Result<void> Machine::load_guest() {
  auto boot_state = load_guest_software(config_, devices_->acpi(), memory_->memory());
  if (!boot_state) return boot_state.error();
  boot_state_ = *std::move(boot_state);
  return {};
}

Result<void> Machine::create_vcpus() {
  auto cpuid = cpuid_options(config_.cpus, topology_);
  if (!cpuid) return cpuid.error();
  cpuid_ = *std::move(cpuid);
  cpuid_.tsc_deadline_timer = system_->has_tsc_deadline_timer();

  const VcpuSurroundings surroundings{*vm_, devices_->pio(), devices_->mmio(), main_loop_,
                                      [this](const VcpuFailure& f) { on_vcpu_failed(f); }};
  for (uint32_t index = 0; index < config_.cpus.count; ++index) {
    VcpuThread::Options options;
    options.index = index;
    options.apic_id = apic_id_of(topology_, index);
    options.sched = config_.cpus.sched;
    const std::vector<uint32_t>& pin = config_.cpus.pin;
    if (!pin.empty()) options.cpus.add(pin[index % pin.size()]);
    options.set_up = [this, index](Vcpu& vcpu) -> Result<void> {
      SKIFF_RETURN_IF_ERROR(vcpu.set_cpuid(make_cpuid(system_->supported_cpuid(), cpuid_, index)));
      SKIFF_RETURN_IF_ERROR(start_vcpu(vcpu, index));
      if (index == 0) measure_exit(vcpu);
      return {};
    };
    options.with_loop = devices_->disks().threads().wants_vcpu_loops();
    auto vcpu = VcpuThread::create(surroundings, std::move(options));
    if (!vcpu) return vcpu.error();
    vcpus_.push_back(*std::move(vcpu));
  }
  for (const auto& vcpu : vcpus_) SKIFF_RETURN_IF_ERROR(vcpu->wait_ready());
  return give_vcpus_to_disks();
}

// On the vCPU's thread, before it is ready. Without an answer nothing is chosen by it.
void Machine::measure_exit(Vcpu& vcpu) {
  if (!devices_->disks().threads().wants_vcpu_loops()) return;
  if (const auto exit_ns = measure_exit_ns(vcpu)) exit_ns_ = *exit_ns;
}

// Before the guest runs: queues that vCPUs serve begin there.
Result<void> Machine::give_vcpus_to_disks() {
  std::vector<QueuePlacer::VcpuContext> contexts;
  for (const auto& vcpu : vcpus_)
    contexts.push_back(
        {vcpu->loop(), [&thread = *vcpu] { return thread.host_cpu(); }, uint64_t{vcpu->native()}});
  devices_->disks().threads().set_exit_cost(exit_ns_);
  return devices_->disks().threads().set_vcpus(std::move(contexts));
}

Result<void> Machine::start_vcpu(Vcpu& vcpu, uint32_t index) {
  return index == 0 ? vcpu.start_at(boot_state_) : vcpu.wait_for_sipi();
}

MachineStatus Machine::status() const {
  return {state_,  config_.cpus.count, config_.memory.size_bytes,
          resets_, stop_reason_,       devices_->disk_status()};
}

bool Machine::press_power_button() { return devices_->press_power_button(); }

void Machine::resize_disk(std::string_view disk, std::optional<uint64_t> size_bytes,
                          std::function<void(const Result<void>&)> done) {
  if (!is_ending_) return devices_->disks().resize(disk, size_bytes, std::move(done));
  main_loop_.post([done = std::move(done)] {
    done(loop::Error(loop::ErrorKind::kCancelled, "The machine is about to end"));
  });
}

Result<void> Machine::set_disk_faults(std::string_view disk, std::string_view rules) {
  auto parsed = block::FaultRules::parse(rules);
  if (!parsed) return parsed.error();
  return devices_->disks().set_faults(disk, *std::move(parsed));
}

// Among the other requests: a disk neither comes nor begins to go in the middle of a reset.
void Machine::add_disk(std::string_view option,
                       std::function<void(const Result<std::string>&)> done) {
  enqueue([this, option = std::string(option), done = std::move(done)]() -> Task<void> {
    done(add_disk_now(option));
    co_return;
  });
}

Result<std::string> Machine::add_disk_now(std::string_view option) {
  if (is_ending_) return loop::Error(loop::ErrorKind::kCancelled, "The machine is about to end");
  // What the disk may refer to is in the machine's configuration.
  MachineConfig config = config_;
  config.disks.clear();
  SKIFF_RETURN_IF_ERROR(apply_config_text(config, fmt::format(R"({{"disk": {}}})", option)));
  if (config.disks.size() != 1)
    return loop::Error(loop::ErrorKind::kInvalidArgument,
                       R"("disk" is not one disk, like "path=FILE,format=raw")");
  SKIFF_RETURN_IF_ERROR(validate_disk(config.disks.front(), config.iothreads));
  return devices_->disk_hotplug().add(config.disks.front());
}

void Machine::remove_disk(std::string_view disk, const DiskRemoval& removal,
                          std::function<void(const Result<void>&)> done) {
  auto answer = [this, done = std::move(done)](const Result<void>& removed) {
    if (removed || state_ != MachineState::kPaused) return done(removed);
    done(removed.error().with_context("The machine is paused, the guest cannot answer"));
  };
  enqueue([this, disk = std::string(disk), removal, answer = std::move(answer)]() -> Task<void> {
    if (is_ending_)
      answer(loop::Error(loop::ErrorKind::kCancelled, "The machine is about to end"));
    else
      devices_->disk_hotplug().remove(disk, removal, answer);
    co_return;
  });
}

// Every vCPU is outside the guest once, and outside whatever it was doing for it.
Task<void> Machine::visit_vcpus() {
  const bool is_running = state_ == MachineState::kRunning;
  if (is_running) co_await pause_vcpus();
  devices_->disk_hotplug().note_vcpus_outside();
  if (!is_running) co_return;
  for (const auto& vcpu : vcpus_) vcpu->resume();
}

Result<void> Machine::set_disk_submit(std::string_view disk, std::string_view submit) {
  const auto parsed = parse_disk_submit(submit);
  if (!parsed)
    return loop::Error(
        loop::ErrorKind::kInvalidArgument,
        fmt::format("submit \"{}\" is not possible (allowed: auto, iothread, vcpu or "
                    "poll)",
                    submit));
  if (is_ending_) return loop::Error(loop::ErrorKind::kCancelled, "The machine is about to end");
  return devices_->disks().set_submit(disk, *parsed);
}

void Machine::update_terminal_size() { devices_->update_terminal_size(); }

void Machine::quit() { end({kExitStopped, "Stopped from outside"}); }

void Machine::on_guest_reset() {
  // Several vCPUs, or one that insists, may ask for the same reset.
  if (is_reset_asked_ || is_ending_) return;
  if (config_.on_reset == OnReset::kExit) return end({kExitPoweredOff, ""});
  is_reset_asked_ = true;
  reset([this] { is_reset_asked_ = false; });
}

void Machine::on_disk_stopped(std::string reason) {
  stop_reason_ = std::move(reason);
  pause(nullptr);
}

void Machine::on_vcpu_failed(const VcpuFailure& failure) {
  if (failure.guest_crashed) return end({kExitGuestCrashed, failure.text});
  std::string message = failure.text;
  if (failure.emulation_failed) message += "\n" + emulation_failure_hint();
  end({kExitKvmError, std::move(message)});
}

void Machine::end(MachineEnding ending) {
  home_.assert_here();
  if (is_ending_) return;
  is_ending_ = true;
  ending_ = std::move(ending);
  end_timer_.arm_after(kEndOverdueNs);
  enqueue([this] { return do_end(); });
}

void Machine::on_end_overdue() {
  is_end_overdue_ = true;
  SKIFF_LOG(kWarn,
            "Waiting for the host to finish what the guest asked of {}; a signal (Ctrl-C, SIGTERM) "
            "ends Skiff without that",
            devices_->waiting_for());
}

void Machine::pause(std::function<void()> done) {
  enqueue([this, done = std::move(done)] { return do_pause(done); });
}

void Machine::resume(std::function<void()> done) {
  enqueue([this, done = std::move(done)] { return do_resume(done); });
}

void Machine::reset(std::function<void()> done) {
  enqueue([this, done = std::move(done)] { return do_reset(done); });
}

void Machine::enqueue(std::function<Task<void>()> request) {
  home_.assert_here();
  requests_.push_back(std::move(request));
  if (is_serving_) return;
  is_serving_ = true;
  // In a turn of its own: `done` never runs inside the call that asked.
  main_loop_.post([this] { tasks_.spawn(serve_requests()); });
}

Task<void> Machine::serve_requests() {
  while (!requests_.empty()) {
    const auto request = std::move(requests_.front());
    requests_.pop_front();
    co_await request();
  }
  is_serving_ = false;
  // The very last act: the owner may destroy the machine in a later turn.
  if (state_ == MachineState::kEnded && ended_)
    main_loop_.post([ended = std::exchange(ended_, nullptr), ending = ending_] { ended(ending); });
}

Task<void> Machine::pause_vcpus() {
  size_t waiting = vcpus_.size();
  co_await CallbackAwaiter([this, &waiting](const std::function<void()>& all_paused) {
    for (const auto& vcpu : vcpus_)
      vcpu->pause([&waiting, all_paused] {
        if (--waiting == 0) all_paused();
      });
  });
}

Task<void> Machine::do_pause(std::function<void()> done) {
  if (state_ == MachineState::kRunning) {
    co_await pause_vcpus();
    state_ = MachineState::kPaused;
  }
  if (done) done();
}

Task<void> Machine::do_resume(std::function<void()> done) {
  if (state_ == MachineState::kPaused) {
    stop_reason_.clear();
    devices_->disks().retry_failed_requests();
    for (const auto& vcpu : vcpus_) vcpu->resume();
    state_ = MachineState::kRunning;
  }
  if (done) done();
  co_return;
}

Task<void> Machine::do_reset(std::function<void()> done) {
  if (state_ != MachineState::kEnded && !is_ending_) {
    state_ = MachineState::kResetting;
    stop_reason_.clear();
    co_await pause_vcpus();
    co_await devices_->reset();
    auto started = vm_->reset_interrupt_controllers();
    if (started) started = load_guest();
    if (started) started = co_await restart_vcpus();
    if (started) {
      for (const auto& vcpu : vcpus_) vcpu->resume();
      state_ = MachineState::kRunning;
      ++resets_;
    } else {
      end({kExitUsage, started.error().with_context("Resetting the machine").message()});
    }
  }
  if (done) done();
}

Task<Result<void>> Machine::restart_vcpus() {
  size_t waiting = vcpus_.size();
  Result<void> first_error;
  co_await CallbackAwaiter([&, this](const std::function<void()>& all_started) {
    for (uint32_t index = 0; index < vcpus_.size(); ++index)
      vcpus_[index]->call([this, index](Vcpu& vcpu) { return start_vcpu(vcpu, index); },
                          [&, all_started](const Result<void>& started) {
                            if (!started && first_error) first_error = started.error();
                            if (--waiting == 0) all_started();
                          });
  });
  co_return first_error;
}

Task<void> Machine::do_end() {
  co_await pause_vcpus();
  // What the guest had handed over is carried out: its disks are written, its last words printed.
  co_await devices_->shut_down();
  end_timer_.cancel();
  state_ = MachineState::kEnded;
}

}  // namespace skiff::vmm
