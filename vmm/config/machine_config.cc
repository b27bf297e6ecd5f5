// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/machine_config.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/units.h"
#include "loop/cpu_set.h"
#include "loop/log.h"
#include "loop/result.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/field_values.h"
#include "vmm/config/option_text.h"
#include "vmm/cpuid.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Pairs = std::vector<KeyValue>;

constexpr std::array<std::pair<std::string_view, OnReset>, 2> kOnReset = {
    {{"restart", OnReset::kRestart}, {"exit", OnReset::kExit}}};
constexpr std::array<std::pair<std::string_view, loop::LogLevel>, 6> kLogLevels = {
    {{"trace", loop::LogLevel::kTrace},
     {"debug", loop::LogLevel::kDebug},
     {"info", loop::LogLevel::kInfo},
     {"warn", loop::LogLevel::kWarn},
     {"error", loop::LogLevel::kError},
     {"off", loop::LogLevel::kOff}}};

Result<void> apply_cpus(MachineConfig& config, const Pairs& pairs) {
  CpuConfig& cpus = config.cpus;
  const auto number = [](uint32_t& target) {
    return
        [&target](std::string_view text) { return assign(target, parse_uint(text, 1, kVcpusMax)); };
  };
  const auto pin = [&](std::string_view text) {
    loop::CpuSet set;
    if (!assign_cpus(set, text)) return false;
    cpus.pin.clear();
    for (uint32_t cpu = 0; cpus.pin.size() < set.count(); ++cpu)
      if (set.contains(cpu)) cpus.pin.push_back(cpu);
    return true;
  };
  const std::array fields = {
      Field{"count", "1 to 255", number(cpus.count)},
      Field{"sockets", "1 to 255", number(cpus.sockets)},
      Field{"cores", "1 to 255", number(cpus.cores)},
      Field{"threads", "1 to 255", number(cpus.threads)},
      Field{"pin", kCpuListValues, pin},
      Field{"sched", kSchedValues, [&](auto text) { return assign_sched(cpus.sched, text); }},
      Field{"mask", "CPU features like avx2:avx512f",
            [&](auto text) { return assign_text(cpus.mask, text); }},
  };
  return apply_fields("cpus", pairs, fields);
}

Result<void> apply_workers(MachineConfig& config, const Pairs& pairs) {
  WorkersConfig& workers = config.workers;
  const auto number = [](uint32_t& target) {
    return [&target](std::string_view text) { return assign(target, parse_uint(text, 1, 1024)); };
  };
  const std::array fields = {
      Field{"max", "1 to 1024", number(workers.max)},
      Field{"min", "1 to 1024", number(workers.min)},
      Field{"cpus", kCpuListValues, [&](auto text) { return assign_cpus(workers.cpus, text); }},
      Field{"sched", kSchedValues, [&](auto text) { return assign_sched(workers.sched, text); }},
  };
  SKIFF_RETURN_IF_ERROR(apply_fields("workers", pairs, fields));
  // A small pool without a min of its own starts with all that it may have.
  if (pairs.size() == 1 && pairs.front().key == "max")
    workers.min = std::min(workers.min, workers.max);
  if (workers.min <= workers.max) return {};
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("workers: min={} is more than max={}", workers.min, workers.max));
}

Result<void> apply_memory(MachineConfig& config, const Pairs& pairs) {
  MemoryConfig& memory = config.memory;
  const auto size = [&](std::string_view text) {
    constexpr uint64_t kMin = uint64_t{8} << 20;
    constexpr uint64_t kMax = uint64_t{16} << 40;
    const auto bytes = block::parse_bytes(text);
    if (!bytes || *bytes < kMin || *bytes > kMax || *bytes % 4096 != 0) return false;
    memory.size_bytes = *bytes;
    return true;
  };
  const std::array fields = {
      Field{"size", "8M to 16T, like 512M or 4G", size},
      Field{"prealloc", kSwitchValues,
            [&](auto text) { return assign_switch(memory.prealloc, text); }},
      Field{"mlock", kSwitchValues, [&](auto text) { return assign_switch(memory.mlock, text); }},
  };
  return apply_fields("memory", pairs, fields);
}

Result<void> apply_disk(MachineConfig& config, const Pairs& pairs) {
  auto disk = parse_disk(pairs);
  if (!disk) return disk.error();
  config.disks.push_back(*std::move(disk));
  return {};
}

Result<void> apply_iothread(MachineConfig& config, const Pairs& pairs) {
  auto thread = parse_iothread(pairs);
  if (!thread) return thread.error();
  config.iothreads.push_back(*std::move(thread));
  return {};
}

Result<void> apply_console(MachineConfig& config, const Pairs& pairs) {
  ConsoleConfig console;
  const std::array fields = {
      Field{"backend", "stdio, null, pty[:LINK], file:PATH or unix:PATH",
            [&](auto text) { return assign_text(console.backend, text); }},
      Field{"name", "a port name", [&](auto text) { return assign_text(console.name, text); }},
      Field{"bus", "pci or mmio",
            [&](auto text) { return assign_enum<DeviceBus>(config.console_bus, text, kBusNames); }},
  };
  SKIFF_RETURN_IF_ERROR(apply_fields("console", pairs, fields));
  if (console.backend.empty())
    return Error(ErrorKind::kInvalidArgument, "console: no backend (write --console stdio)");
  config.consoles.push_back(std::move(console));
  return {};
}

// An option with one value, told as its only pair.
Result<void> apply_single(std::string_view option, std::string_view allowed, const Pairs& pairs,
                          std::function<bool(std::string_view)> set) {
  const std::array fields = {Field{"value", allowed, std::move(set)}};
  return apply_fields(option, pairs, fields);
}

template <std::string MachineConfig::* member>
Result<void> apply_text(MachineConfig& config, const Pairs& pairs) {
  config.*member = pairs.empty() ? std::string() : pairs.front().value;
  return {};
}

template <bool MachineConfig::* member>
Result<void> apply_flag(MachineConfig& config, const Pairs& pairs) {
  return apply_single("flag", kSwitchValues, pairs,
                      [&](auto text) { return assign_switch(config.*member, text); });
}

Result<void> apply_serial(MachineConfig& config, const Pairs& pairs) {
  config.serials.push_back(pairs.front().value);
  return {};
}

Result<void> apply_on_reset(MachineConfig& config, const Pairs& pairs) {
  return apply_single("on-reset", "restart or exit", pairs, [&](auto text) {
    return assign_enum<OnReset>(config.on_reset, text, kOnReset);
  });
}

Result<void> apply_log(MachineConfig& config, const Pairs& pairs) {
  return apply_single("log", "trace, debug, info, warn, error or off", pairs, [&](auto text) {
    return assign_enum<loop::LogLevel>(config.log_level, text, kLogLevels);
  });
}

Result<void> apply_timeout(MachineConfig& config, const Pairs& pairs) {
  return apply_single("timeout", "1 to 86400 seconds", pairs, [&](auto text) {
    return assign(config.timeout_s, parse_uint(text, 1, 86400));
  });
}

constexpr auto kText = OptionForm::kText;
constexpr auto kPairs = OptionForm::kPairs;
constexpr auto kFlag = OptionForm::kFlag;

constexpr std::array<OptionInfo, 18> kOptions = {{
    {"kernel", kText, "value", false, "FILE",
     "Kernel: bzImage, ELF vmlinux (also PVH) or multiboot", apply_text<&MachineConfig::kernel>},
    {"initrd", kText, "value", false, "FILE", "Initial RAM disk",
     apply_text<&MachineConfig::initrd>},
    {"cmdline", kText, "value", false, "TEXT", "Kernel command line, added to what Skiff needs",
     apply_text<&MachineConfig::cmdline>},
    {"cpus", kPairs, "count", false,
     "N[,sockets=N][,cores=N][,threads=N][,pin=LIST][,sched=POLICY][,mask=NAMES]",
     "vCPUs, 1 to 255", apply_cpus},
    {"memory", kPairs, "size", false, "SIZE[,prealloc=on][,mlock=on]", "Guest RAM, like 512M or 4G",
     apply_memory},
    {"disk", kPairs, "path", true,
     "path=FILE|URL|vhost-user=SOCKET[,format=raw][,readonly=on][,direct=on][,engine=NAME]"
     "[,serial=TEXT]"
     "[,rerror=POLICY][,werror=POLICY][,fault=RULES][,iops[-read|-write|-burst]=N]"
     "[,bps[-read|-write|-burst]=SIZE][,reconnect-delay=SECONDS][,reply-timeout=SECONDS]"
     "[,bus=pci|mmio][,queues=N|auto][,queue-size=N][,submit=auto|iothread|vcpu|poll]"
     "[,iothreads=ID:ID...][,map=auto|round-robin|ID:ID...][,steer=auto|off][,discard=on|off]",
     "Add a virtio-blk disk", apply_disk},
    {"iothread", kPairs, "id", true, "id=ID[,cpus=LIST][,sched=POLICY][,poll-max-us=N]",
     "Add a thread that serves disks; without any Skiff makes as many as suit the host",
     apply_iothread},
    {"workers", kPairs, "max", false, "MAX[,min=N][,cpus=LIST][,sched=POLICY]",
     "Threads for the disks' blocking calls, 32 at most and 2 at first", apply_workers},
    {"serial", kText, "value", true, "stdio|null|file:PATH|pty[:LINK]|unix:PATH",
     "Where the next serial port (COM1 to COM4) goes", apply_serial},
    {"console", kPairs, "backend", true, "BACKEND[,name=NAME][,bus=pci|mmio]",
     "Add a virtio-console port; backends as for --serial", apply_console},
    {"debugcon", kText, "value", false, "BACKEND",
     "Where what the guest writes to port 0xe9 goes; backends as for --serial",
     apply_text<&MachineConfig::debugcon>},
    {"rng", kFlag, "value", false, "", "Add a virtio entropy source",
     apply_flag<&MachineConfig::rng>},
    {"on-reset", kText, "value", false, "restart|exit", "What a guest's reset does",
     apply_on_reset},
    {"control", kText, "value", false, "SOCKET", "Control socket: one JSON command a line",
     apply_text<&MachineConfig::control>},
    {"log", kText, "value", false, "LEVEL", "trace, debug, info, warn (default), error or off",
     apply_log},
    {"exec", kText, "value", false, "COMMAND",
     "Run COMMAND in the Linux guest and exit with its status", apply_text<&MachineConfig::exec>},
    {"shell", kFlag, "value", false, "", "Give a shell in the Linux guest",
     apply_flag<&MachineConfig::shell>},
    {"timeout", kText, "value", false, "SECONDS", "Stop the machine after this long",
     apply_timeout},
}};

auto count_on_stdio(const MachineConfig& config) {
  const auto is_stdio = [](const std::string& backend) { return backend == "stdio"; };
  return std::ranges::count_if(config.serials, is_stdio) +
         std::ranges::count_if(config.consoles, is_stdio, &ConsoleConfig::backend) +
         (is_stdio(config.debugcon) ? 1 : 0);
}

}  // namespace

bool uses_stdio(const MachineConfig& config) { return count_on_stdio(config) > 0; }

std::span<const OptionInfo> machine_options() { return kOptions; }

Result<void> apply_option(MachineConfig& config, const OptionInfo& option, const Pairs& pairs) {
  auto applied = option.apply(config, pairs);
  if (applied || option.form != OptionForm::kFlag) return applied;
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("{}: not a switch (allowed: true or false)", option.name));
}

Result<void> apply_option(MachineConfig& config, const OptionInfo& option, std::string_view text) {
  if (option.form != OptionForm::kPairs)
    return apply_option(config, option,
                        Pairs{{std::string(option.leading_key), std::string(text)}});
  auto pairs = split_options(option.name, text, option.leading_key);
  if (!pairs) return pairs.error();
  return apply_option(config, option, *pairs);
}

Result<void> validate(const MachineConfig& config) {
  const auto invalid = [](std::string message) {
    return Error(ErrorKind::kInvalidArgument, std::move(message));
  };
  if (config.kernel.empty()) return invalid("No kernel (write --kernel FILE)");
  if (config.serials.size() > 4) return invalid("serial: at most 4 serial ports");
  if (config.consoles.size() > 16) return invalid("console: at most 16 ports");
  if (config.disks.size() > kDisksMax)
    return invalid(fmt::format("disk: at most {} disks", kDisksMax));
  SKIFF_RETURN_IF_ERROR(validate_iothreads(config.iothreads));
  for (const DiskConfig& disk : config.disks)
    SKIFF_RETURN_IF_ERROR(validate_disk(disk, config.iothreads));
  if (!config.exec.empty() && config.shell) return invalid("exec and shell exclude each other");

  const CpuConfig& cpus = config.cpus;
  const auto or_one = [](uint32_t value) { return value == 0 ? 1 : value; };
  const uint32_t known = or_one(cpus.sockets) * or_one(cpus.cores) * or_one(cpus.threads);
  const bool all_given = cpus.sockets != 0 && cpus.cores != 0 && cpus.threads != 0;
  if (all_given ? known != cpus.count : cpus.count % known != 0)
    return invalid(fmt::format("cpus: {} vCPUs do not divide into sockets={} cores={} threads={}",
                               cpus.count, cpus.sockets, cpus.cores, cpus.threads));
  if (auto mask = parse_feature_mask(cpus.mask); !mask) return mask.error().with_context("cpus");
  const auto on_stdio = count_on_stdio(config);
  if (on_stdio > 1) return invalid("serial, console, debugcon: only one of them can be on stdio");
  if (on_stdio > 0 && (config.shell || !config.exec.empty()))
    return invalid(
        "serial, console: stdio belongs to --exec and --shell when one of them is given");
  return {};
}

}  // namespace skiff::vmm
