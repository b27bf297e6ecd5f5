// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/machine_config.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "block/error_policy.h"
#include "block/filters/fault_rules.h"
#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "block/units.h"
#include "loop/cpu_set.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/config/option_text.h"
#include "vmm/cpuid.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Pairs = std::vector<KeyValue>;

constexpr std::string_view kSwitch = "on or off";

template <typename T>
bool assign(T& target, std::optional<uint64_t> value) {
  if (value) target = static_cast<T>(*value);
  return value.has_value();
}

bool assign_switch(bool& target, std::string_view text) {
  const std::optional<bool> value = parse_switch(text);
  if (value) target = *value;
  return value.has_value();
}

bool assign_text(std::string& target, std::string_view text) {
  target = text;
  return !text.empty();
}

// The command line keeps commas for itself: lists inside a value are written with colons.
bool assign_cpu_list(std::vector<uint32_t>& target, std::string_view text) {
  std::string list(text);
  std::ranges::replace(list, ':', ',');
  const auto cpus = loop::CpuSet::parse(list);
  if (!cpus || cpus->empty()) return false;
  target.clear();
  for (uint32_t cpu = 0; target.size() < cpus->count(); ++cpu)
    if (cpus->contains(cpu)) target.push_back(cpu);
  return true;
}

bool assign_sched(loop::SchedPolicy& target, std::string_view text) {
  const auto policy = loop::SchedPolicy::parse(text);
  if (policy) target = *policy;
  return policy.has_value();
}

bool assign_engine(block::IoEngineKind& target, std::string_view text) {
  const auto kind = block::parse_engine(text);
  if (kind) target = *kind;
  return kind.has_value();
}

bool assign_error_policy(block::ErrorPolicy& target, std::string_view text) {
  const auto policy = block::parse_error_policy(text);
  if (policy) target = *policy;
  return policy.has_value();
}

template <typename E>
bool assign_enum(E& target, std::string_view text,
                 std::span<const std::pair<std::string_view, E>> names) {
  for (const auto& [name, value] : names) {
    if (name != text) continue;
    target = value;
    return true;
  }
  return false;
}

constexpr std::array<std::pair<std::string_view, DeviceBus>, 2> kBuses = {
    {{"pci", DeviceBus::kPci}, {"mmio", DeviceBus::kMmio}}};
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
  const std::array fields = {
      Field{"count", "1 to 255", number(cpus.count)},
      Field{"sockets", "1 to 255", number(cpus.sockets)},
      Field{"cores", "1 to 255", number(cpus.cores)},
      Field{"threads", "1 to 255", number(cpus.threads)},
      Field{"pin", "host CPUs like 0-3:8",
            [&](auto text) { return assign_cpu_list(cpus.pin, text); }},
      Field{"sched", "other, batch, idle, fifo:1..99 or rr:1..99",
            [&](auto text) { return assign_sched(cpus.sched, text); }},
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
  const auto cpus = [&](std::string_view text) {
    std::string list(text);
    std::ranges::replace(list, ':', ',');
    auto parsed = loop::CpuSet::parse(list);
    if (!parsed || parsed->empty()) return false;
    workers.cpus = *std::move(parsed);
    return true;
  };
  const std::array fields = {
      Field{"max", "1 to 1024", number(workers.max)},
      Field{"min", "1 to 1024", number(workers.min)},
      Field{"cpus", "host CPUs like 0-3:8", cpus},
      Field{"sched", "other, batch, idle, fifo:1..99 or rr:1..99",
            [&](auto text) { return assign_sched(workers.sched, text); }},
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
      Field{"prealloc", kSwitch, [&](auto text) { return assign_switch(memory.prealloc, text); }},
      Field{"mlock", kSwitch, [&](auto text) { return assign_switch(memory.mlock, text); }},
  };
  return apply_fields("memory", pairs, fields);
}

bool assign_rate(uint64_t& target, std::optional<uint64_t> value) {
  return assign(target, value) && target > 0;
}

void add_throttle_fields(std::vector<Field>& fields, block::ThrottleLimits& limits) {
  using Rates = block::ThrottleLimits::Rates;
  constexpr std::array<std::tuple<std::string_view, std::string_view, uint64_t Rates::*>, 4> kIops =
      {{{"iops", "1 or more requests a second", &Rates::total},
        {"iops-read", "1 or more reads a second", &Rates::read},
        {"iops-write", "1 or more writes a second", &Rates::write},
        {"iops-burst", "1 or more requests", &Rates::burst}}};
  constexpr std::array<std::tuple<std::string_view, std::string_view, uint64_t Rates::*>, 4> kBps =
      {{{"bps", "bytes a second like 100M", &Rates::total},
        {"bps-read", "bytes a second like 100M", &Rates::read},
        {"bps-write", "bytes a second like 100M", &Rates::write},
        {"bps-burst", "bytes like 16M", &Rates::burst}}};
  for (const auto& [name, allowed, member] : kIops)
    fields.push_back({name, allowed, [&target = limits.requests.*member](std::string_view text) {
                        return assign_rate(target, parse_uint(text, 1, 1'000'000'000));
                      }});
  for (const auto& [name, allowed, member] : kBps)
    fields.push_back({name, allowed, [&target = limits.bytes.*member](std::string_view text) {
                        return assign_rate(target, block::parse_bytes(text));
                      }});
}

Result<void> apply_disk(MachineConfig& config, const Pairs& pairs) {
  constexpr uint64_t kYearSeconds = 31'536'000;
  DiskConfig disk;
  std::optional<Error> fault_error;  // Says more than what is allowed.
  const auto assign_faults = [&](std::string_view text) {
    auto rules = block::FaultRules::parse(text);
    if (!rules) fault_error = rules.error().with_context("disk");
    if (rules) disk.faults = *std::move(rules);
    return disk.faults.has_value();
  };
  std::vector<Field> fields = {
      Field{"path", "a file, a block device, an NBD URL, or null:size=SIZE[,,latency=TIME]",
            [&](auto text) { return assign_text(disk.path, text); }},
      Field{"format", "raw", [&](auto text) { return disk.format_given = (text == "raw"); }},
      Field{"readonly", kSwitch, [&](auto text) { return assign_switch(disk.readonly, text); }},
      Field{"direct", kSwitch, [&](auto text) { return assign_switch(disk.direct, text); }},
      Field{"engine", "auto, sync, worker, threads, posix-aio, linux-aio or io_uring",
            [&](auto text) { return assign_engine(disk.engine, text); }},
      Field{"serial", "1 to 20 characters",
            [&](auto text) { return text.size() <= 20 && assign_text(disk.serial, text); }},
      Field{"rerror", block::kErrorPolicyNames,
            [&](auto text) { return assign_error_policy(disk.errors.read, text); }},
      Field{"werror", block::kErrorPolicyNames,
            [&](auto text) { return assign_error_policy(disk.errors.write, text); }},
      Field{"reconnect-delay", "0 to 31536000 seconds that requests wait for an NBD server",
            [&](auto text) {
              return assign(disk.nbd.reconnect_delay_s, parse_uint(text, 0, kYearSeconds));
            }},
      Field{"reply-timeout", "0 (never) to 31536000 seconds until an NBD server counts as gone",
            [&](auto text) {
              return assign(disk.nbd.reply_timeout_s, parse_uint(text, 0, kYearSeconds));
            }},
      Field{"fault", "rules like op=write:at=1M+64K:error=EIO", assign_faults},
      Field{"bus", "pci or mmio",
            [&](auto text) { return assign_enum<DeviceBus>(disk.bus, text, kBuses); }},
  };
  add_throttle_fields(fields, disk.throttle);
  if (auto applied = apply_fields("disk", pairs, fields); !applied)
    return fault_error.value_or(applied.error());
  if (disk.path.empty())
    return Error(ErrorKind::kInvalidArgument, "disk: no path (write --disk path=FILE)");
  config.disks.push_back(std::move(disk));
  return {};
}

Result<void> apply_console(MachineConfig& config, const Pairs& pairs) {
  ConsoleConfig console;
  const std::array fields = {
      Field{"backend", "stdio, null, pty[:LINK], file:PATH or unix:PATH",
            [&](auto text) { return assign_text(console.backend, text); }},
      Field{"name", "a port name", [&](auto text) { return assign_text(console.name, text); }},
      Field{"bus", "pci or mmio",
            [&](auto text) { return assign_enum<DeviceBus>(config.console_bus, text, kBuses); }},
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
  return apply_single("flag", kSwitch, pairs,
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

constexpr std::array<OptionInfo, 17> kOptions = {{
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
     "path=FILE|URL[,format=raw][,readonly=on][,direct=on][,engine=NAME][,serial=TEXT]"
     "[,rerror=POLICY][,werror=POLICY][,fault=RULES][,iops[-read|-write|-burst]=N]"
     "[,bps[-read|-write|-burst]=SIZE][,reconnect-delay=SECONDS][,reply-timeout=SECONDS]"
     "[,bus=pci|mmio]",
     "Add a virtio-blk disk", apply_disk},
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
  if (config.disks.size() > 24) return invalid("disk: at most 24 disks");
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
