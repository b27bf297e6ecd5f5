// SPDX-License-Identifier: GPL-2.0-or-later
// MachineConfig: everything the user said about the machine, checked on its own but not yet against
// this host.
//
// Thread: any; a value.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/field_values.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {

inline constexpr uint32_t kVcpusMax = 255;

struct CpuConfig {
  uint32_t count = 1;
  uint32_t sockets = 0;  // 0: follows from the others.
  uint32_t cores = 0;    // Per socket.
  uint32_t threads = 0;  // Per core.
  // vCPU i runs on host CPU pin[i % pin.size()]; empty: anywhere.
  std::vector<uint32_t> pin;
  loop::SchedPolicy sched;
  std::string mask;  // CPU features hidden from the guest, by their /proc/cpuinfo names.
};

struct MemoryConfig {
  uint64_t size_bytes = uint64_t{512} << 20;
  bool prealloc = false;
  bool mlock = false;
};

// The threads that do the disks' blocking calls.
struct WorkersConfig {
  uint32_t max = 32;
  uint32_t min = 2;
  loop::CpuSet cpus;  // Empty: all that the process may use.
  loop::SchedPolicy sched;
};

// A virtio-console port: where its host end is, and the name that the guest finds it by.
struct ConsoleConfig {
  std::string backend;
  std::string name;
};

enum class OnReset : uint8_t { kRestart, kExit };

struct MachineConfig {
  std::string kernel;
  std::string initrd;
  std::string cmdline;
  CpuConfig cpus;
  MemoryConfig memory;
  WorkersConfig workers;
  std::vector<IothreadConfig> iothreads;  // Empty: the machine makes as many as suit the host.
  std::vector<DiskConfig> disks;
  std::vector<std::string> serials;  // Host ends of COM1 to COM4.
  std::vector<ConsoleConfig> consoles;
  DeviceBus console_bus = DeviceBus::kPci;
  std::string debugcon;  // Where port 0xe9 goes; empty: nobody is there.
  bool rng = false;
  OnReset on_reset = OnReset::kRestart;
  std::string control;  // Path of the control socket; empty: none.
  loop::LogLevel log_level = loop::LogLevel::kWarn;

  bool shell = false;  // Our init gives a shell.
  std::string exec;    // Our init runs this; empty: it does not.
  uint32_t timeout_s = 0;
};

// How an option's value is written.
enum class OptionForm : uint8_t {
  kText,   // Taken as it is, commas and all.
  kPairs,  // VALUE[,KEY=VALUE]..., the first one standing for the leading key.
  kFlag,   // No value; in a file, true or false.
};

// Every option of `skiff run` that describes the machine; the command line and the file are both
// made from this table.
struct OptionInfo {
  std::string_view name;  // Without dashes.
  OptionForm form;
  std::string_view leading_key;
  bool repeatable;
  std::string_view shape;  // For --help.
  std::string_view help;
  loop::Result<void> (*apply)(MachineConfig& config, const std::vector<KeyValue>& pairs);
};
std::span<const OptionInfo> machine_options();

// Applies one option. kText and kFlag options take a single pair with the leading key.
loop::Result<void> apply_option(MachineConfig& config, const OptionInfo& option,
                                const std::vector<KeyValue>& pairs);
// Applies one option from its text on the command line.
loop::Result<void> apply_option(MachineConfig& config, const OptionInfo& option,
                                std::string_view text);

// Does anything the user asked for read and write our own stdin and stdout?
bool uses_stdio(const MachineConfig& config);

// What no single option can check: that a kernel is named, that topology and count agree, that
// --exec is possible.
loop::Result<void> validate(const MachineConfig& config);

}  // namespace skiff::vmm
