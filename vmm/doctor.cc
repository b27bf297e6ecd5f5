// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/doctor.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <ratio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "loop/result.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_layout.h"
#include "vmm/memory_slots.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr const char* kLabAdvice =
    "What to do: use the lab, a full KVM host in software on this machine: scripts/lab -- CMD";

// Emulated kernel code takes about 1000 times as long as user code. A host that runs both, be it in
// software as in the lab, comes nowhere near this ratio, even when the first turns are slow.
constexpr double kEmulatedRatio = 50;
constexpr uint32_t kFewTurns = 1500;  // 2 ms where emulated.
constexpr double kSurelyEmulatedNs = 300;
constexpr uint32_t kManyTurns = 200'000;

// Not RAM, and mapped. The probe tells by writing here how far it is: unlike ports, this is allowed
// in CPL 3 everywhere.
constexpr uint32_t kSignalAddress = 0x1000'0000;

// Two signals one after the other tell what an exit costs, then come two counted loops of two
// instructions a turn. The last part is what emulators of kernel code lack.
std::vector<uint8_t> probe_code(uint32_t turns) {
  auto with_imm32 = [](uint8_t opcode, uint32_t value) {
    return std::vector<uint8_t>{opcode, static_cast<uint8_t>(value),
                                static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value >> 16),
                                static_cast<uint8_t>(value >> 24)};
  };
  std::vector<uint8_t> code;
  auto add = [&code](const std::vector<uint8_t>& part) {
    code.insert(code.end(), part.begin(), part.end());
  };
  const std::vector<uint8_t> signal = {0x89, 0x03};  // mov [rbx], eax
  add(with_imm32(0xbb, kSignalAddress));             // mov ebx, kSignalAddress
  add(signal);
  add(signal);
  for (int i = 0; i < 2; ++i) {
    add(with_imm32(0xb9, turns));   // mov ecx, turns
    add({0xff, 0xc9, 0x75, 0xfc});  // 1: dec ecx; jnz 1b
    add(signal);
  }
  add({0xf3, 0x0f, 0xb8, 0xc1});  // popcnt eax, ecx
  add(signal);
  add({0xeb, 0xfe});  // 1: jmp 1b
  return code;
}

struct Probe {
  VcpuMode mode;
  uint32_t turns;
  uint32_t apic_id;  // Each has its own vCPU.
};

struct ProbeResult {
  double turn_ns = 0;        // Of the counted loop.
  bool is_complete = false;  // It got to its end.
  std::string failure;       // Otherwise why not.
};

// Runs the probe and takes the time at each signal.
Result<ProbeResult> run_probe(Vm& vm, const devices::GuestMemory& memory, const Probe& probe) {
  using Clock = std::chrono::steady_clock;
  constexpr size_t kSignals = 5;
  if (!write_payload_tables(memory) || !write_payload_code(memory, probe_code(probe.turns)))
    return Error(ErrorKind::kInvalidArgument, "The probe does not fit its memory");
  auto vcpu = Vcpu::create(vm, probe.apic_id);
  if (!vcpu) return vcpu.error();
  CpuidOptions cpuid;
  cpuid.topology = {.cpus = 3, .sockets = 1, .cores = 3, .threads = 1};
  SKIFF_RETURN_IF_ERROR(
      (*vcpu)->set_cpuid(make_cpuid(vm.system().supported_cpuid(), cpuid, probe.apic_id)));
  SKIFF_RETURN_IF_ERROR((*vcpu)->start_at(payload_boot_state(probe.mode)));

  std::vector<Clock::time_point> times;
  ProbeResult result;
  while (times.size() < kSignals) {
    const Result<VcpuExit> exit = (*vcpu)->run();
    if (!exit) return exit.error();
    if (exit->kind == VcpuExitKind::kInterrupted) continue;
    if (exit->kind != VcpuExitKind::kMmio) {
      result.failure = (*vcpu)->describe(*exit);
      break;
    }
    times.push_back(Clock::now());
  }
  result.is_complete = times.size() == kSignals;
  if (times.size() < kSignals - 1) return result;
  auto step_ns = [&](size_t i) {
    return std::chrono::duration<double, std::nano>(times[i + 1] - times[i]).count();
  };
  const double loop_ns = std::min(step_ns(1), step_ns(2)) - step_ns(0);
  result.turn_ns = std::max(loop_ns / probe.turns, 0.1);
  return result;
}

struct Probes {
  ProbeResult kernel;
  ProbeResult user;
};

Result<Probes> run_probes(const KvmSystem& system) {
  auto vm = Vm::create(system);
  if (!vm) return vm.error();
  auto memory = MemorySlots::create(**vm, {.size_bytes = 2 * kMiB, .huge_pages = false});
  if (!memory) return memory.error();
  SKIFF_RETURN_IF_ERROR((*vm)->add_interrupt_controllers());
  auto user = run_probe(**vm, (*memory)->memory(), {VcpuMode::kLong64User, kManyTurns, 0});
  if (!user) return user.error();
  auto kernel = run_probe(**vm, (*memory)->memory(), {VcpuMode::kLong64, kFewTurns, 1});
  if (!kernel) return kernel.error();
  // Not emulated, it seems: time enough for as good a measurement as of user code.
  if (kernel->is_complete && kernel->turn_ns < kSurelyEmulatedNs)
    kernel = run_probe(**vm, (*memory)->memory(), {VcpuMode::kLong64, kManyTurns, 2});
  if (!kernel) return kernel.error();
  return Probes{*std::move(kernel), *std::move(user)};
}

// "kvm_amd": the module behind /dev/kvm, as far as it shows.
std::string kvm_module() {
  for (const char* name : {"kvm_intel", "kvm_amd", "kvm_pvm"}) {
    std::error_code ignored;
    if (std::filesystem::exists(fmt::format("/sys/module/{}", name), ignored)) return name;
  }
  return "an unknown module";
}

HostFinding unusable(const Error& error) {
  return {HostKind::kUnusable,
          {"Skiff cannot run guests on this host.", error.message(), kLabAdvice}};
}

std::string missing_options(const KvmSystem& system) {
  std::string text;
  for (const KvmCapability& capability : system.capabilities())
    if (capability.value == 0)
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", capability.name, capability.use);
  return text;
}

}  // namespace

HostFinding judge_host(const HostProbe& probe) {
  const double ratio = probe.kernel_turn_ns / std::max(probe.user_turn_ns, 0.01);
  if (!probe.user_complete)
    return {
        HostKind::kUnusable,
        {fmt::format("KVM ({}) is there, but cannot run even a guest's user code.", probe.module),
         probe.failure, kLabAdvice}};
  if (probe.kernel_complete && ratio < kEmulatedRatio)
    return {HostKind::kFullSpeed,
            {fmt::format("This host runs guests at full speed ({}).", probe.module),
             fmt::format("A loop's turn takes {:.1f} ns in a guest's kernel, {:.1f} ns in its user "
                         "code.",
                         probe.kernel_turn_ns, probe.user_turn_ns)}};
  HostFinding finding{HostKind::kKernelEmulated, {}};
  finding.lines.push_back(fmt::format(
      "This host runs a guest's user code at full speed, but emulates its kernel code ({}).",
      probe.module));
  finding.lines.push_back(
      fmt::format("A loop's turn takes {:.0f} ns in a guest's kernel, {:.1f} ns in its user code.",
                  probe.kernel_turn_ns, probe.user_turn_ns));
  if (!probe.kernel_complete)
    finding.lines.push_back("Some kernel instructions are not emulated at all, such as popcnt.");
  finding.lines.push_back(
      "No stock kernel boots here. Guests written for it, in user mode, run as fast as anywhere.");
  finding.lines.push_back(kLabAdvice);
  return finding;
}

HostFinding examine_host(const std::string& kvm_path) {
  const auto system = KvmSystem::open(kvm_path);
  if (!system) return unusable(system.error());
  const auto probes = run_probes(*system);
  if (!probes) return unusable(probes.error());
  HostFinding finding = judge_host({.module = kvm_module(),
                                    .kernel_turn_ns = probes->kernel.turn_ns,
                                    .user_turn_ns = probes->user.turn_ns,
                                    .kernel_complete = probes->kernel.is_complete,
                                    .user_complete = probes->user.is_complete,
                                    .failure = probes->user.failure});
  if (const std::string missing = missing_options(*system); !missing.empty())
    finding.lines.push_back("Missing, and done without: " + missing + ".");
  return finding;
}

std::string doctor_text(const HostFinding& finding) {
  std::string text;
  for (const std::string& line : finding.lines) text += line + "\n";
  return text;
}

int doctor_exit_status(const HostFinding& finding) {
  switch (finding.kind) {
    case HostKind::kFullSpeed:
      return 0;
    case HostKind::kKernelEmulated:
      return 2;
    case HostKind::kUnusable:
      break;
  }
  return 3;
}

std::string emulation_failure_hint() {
  return "KVM here emulates guest kernels and met an instruction that it cannot: ask skiff doctor "
         "what this host can do, or use the lab (scripts/lab -- CMD)";
}

}  // namespace skiff::vmm
