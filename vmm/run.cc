// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/run.h"

#include <spdlog/fmt/fmt.h>

#include <signal.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "devices/chardev/raw_terminal.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/cli/exit_status.h"
#include "vmm/config/machine_config.h"
#include "vmm/machine.h"
#include "vmm/serial_tail.h"
#include "vmm/services/control_server.h"
#include "vmm/services/exec_session.h"
#include "vmm/signal_watch.h"

namespace skiff::vmm {
namespace {

using loop::Result;

// After the power button, this long for the guest to go by itself.
constexpr int64_t kPowerButtonGraceNs = 10'000'000'000;

void say(const std::string& message) {
  if (!message.empty()) std::fprintf(stderr, "skiff: %s\n", message.c_str());
}

// A machine and the services around it, for as long as it runs.
class Run {
 public:
  Run(MachineConfig config, loop::EventLoop& loop)
      : config_(std::move(config)),
        loop_(loop),
        timeout_(loop, loop::Priority::kService, [this] { on_timeout(); }),
        grace_(loop, loop::Priority::kService, [this] { machine_->quit(); }) {}

  Result<void> start();
  int finish();

 private:
  bool has_session() const { return config_.shell || !config_.exec.empty(); }
  Result<void> start_session();
  void on_signal(int signal);
  [[noreturn]] static void stop_without_waiting();
  void on_timeout();
  void on_session_finished(const ExecResult& result);
  void on_machine_ended(const MachineEnding& ending);

  MachineConfig config_;
  loop::EventLoop& loop_;
  SerialTail serial_tail_;
  loop::Timer timeout_;
  loop::Timer grace_;
  std::unique_ptr<SignalWatch> signals_;
  std::unique_ptr<ExecSession> session_;
  std::optional<ExecResult> session_result_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<ControlServer> control_;
  MachineEnding ending_;
};

Result<void> Run::start() {
  auto signals = SignalWatch::create(loop_, [this](int signal) { on_signal(signal); });
  if (!signals) return signals.error();
  signals_ = *std::move(signals);

  Machine::Surroundings surroundings{
      loop_, [this](const MachineEnding& e) { on_machine_ended(e); }, {}};
  if (has_session()) {
    SKIFF_RETURN_IF_ERROR(start_session());
    surroundings.console_ports = session_->ports();
    surroundings.serial_tail = &serial_tail_;
  } else if (config_.serials.empty() && !uses_stdio(config_)) {
    // Somebody who boots a kernel wants to see it.
    config_.serials.emplace_back("stdio");
  }
  auto machine = Machine::create(config_, std::move(surroundings));
  if (!machine) return machine.error();
  machine_ = *std::move(machine);

  if (!config_.control.empty()) {
    auto control = ControlServer::create(loop_, *machine_, config_.control);
    if (!control) return control.error();
    control_ = *std::move(control);
  }
  if (config_.timeout_s > 0) timeout_.arm_after(int64_t{config_.timeout_s} * 1'000'000'000);
  machine_->resume(nullptr);
  return {};
}

Result<void> Run::start_session() {
  // A guest that is to run one command does not come back from a reset.
  config_.on_reset = OnReset::kExit;
  if (config_.shell) config_.consoles.insert(config_.consoles.begin(), {"stdio", ""});
  auto session = ExecSession::create(
      loop_, config_.exec, [this](const ExecResult& result) { on_session_finished(result); });
  if (!session) return session.error();
  session_ = *std::move(session);
  return {};
}

// The first signal presses the power button, so that the guest can put its house in order; the
// second one, and a guest that does not listen, end the machine at once.
void Run::on_signal(int signal) {
  if (signal == SIGWINCH) return machine_->update_terminal_size();
  // Whoever stopped us may have given the terminal a mode of its own meanwhile.
  if (signal == SIGCONT) return devices::RawTerminal::make_raw_again();
  if (machine_->is_end_overdue()) stop_without_waiting();
  const bool asked_before = grace_.is_armed();
  if (asked_before || has_session() || !machine_->press_power_button()) return machine_->quit();
  say("Power button pressed; once more to stop at once");
  grace_.arm_after(kPowerButtonGraceNs);
}

// As SIGKILL would, but for the terminal: the host may never finish what is in flight.
void Run::stop_without_waiting() {
  devices::RawTerminal::restore_now();
  say("Stopped without waiting for the host; what the guest had not flushed may be lost");
  std::_Exit(kExitStopped);
}

void Run::on_timeout() {
  machine_->end({kExitStopped, fmt::format("Stopped after {} s (--timeout)", config_.timeout_s)});
}

void Run::on_session_finished(const ExecResult& result) {
  session_result_ = result;
  machine_->end({});
}

void Run::on_machine_ended(const MachineEnding& ending) {
  ending_ = ending;
  loop_.stop();
}

int Run::finish() {
  control_.reset();
  machine_.reset();
  if (session_result_) {
    if (session_result_->started) return session_result_->status;
    say("The guest could not run the command: " + session_result_->message);
    return kExitGuestCrashed;
  }
  say(ending_.message);
  if (has_session() && ending_.status == kExitPoweredOff) {
    say(session_->has_started() ? "The guest ended before its command did"
                                : "The guest ended before it could run the command");
    ending_.status = kExitGuestCrashed;
  }
  if (has_session() && ending_.status != kExitPoweredOff && !serial_tail_.text().empty()) {
    say("The last it said on its serial port:");
    std::fputs(serial_tail_.text().c_str(), stderr);
  }
  return ending_.status;
}

}  // namespace

int run_machine(const MachineConfig& config) {
  auto loop = loop::EventLoop::create();
  if (!loop) {
    say(loop.error().message());
    return kExitUsage;
  }
  Run run(config, **loop);
  if (auto started = run.start(); !started) {
    say(started.error().message());
    return kExitUsage;
  }
  (*loop)->run();
  return run.finish();
}

}  // namespace skiff::vmm
