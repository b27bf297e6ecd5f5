// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_command.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "block/null_device.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/guest/guest_options.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Command = std::vector<std::string>;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPayloadMiB = 16;  // Its place, and what lies below.
constexpr uint64_t kMemoryMinMiB = 64;
constexpr uint64_t kMemoryMaxMiB = 2048;
constexpr int64_t kPatienceSeconds = 60;

// Both command lines keep single commas for themselves.
std::string with_doubled_commas(std::string_view text) {
  std::string doubled;
  for (const char c : text) {
    doubled += c;
    if (c == ',') doubled += c;
  }
  return doubled;
}

uint32_t write_percent(AccessPattern pattern) {
  if (!writes(pattern)) return 0;
  return pattern == AccessPattern::kRandRw ? 50 : 100;
}

std::string skiff_disk(const GuestBenchOptions& options, const GuestContestant& contestant) {
  std::string disk =
      fmt::format("path={},format=raw,engine={},bus={}", with_doubled_commas(options.path),
                  contestant.engine, options.mmio ? "mmio" : "pci");
  if (options.direct) disk += ",direct=on";
  if (!writes(options.pattern)) disk += ",readonly=on";
  if (!contestant.submit.empty()) disk += ",submit=" + contestant.submit;
  if (options.queues != 1) disk += fmt::format(",queues={}", options.queues);
  if (options.queue_size != 256) disk += fmt::format(",queue-size={}", options.queue_size);
  if (!options.disk_keys.empty()) disk += "," + options.disk_keys;
  return disk;
}

Command skiff_command(const GuestBenchOptions& options, const GuestContestant& contestant,
                      const GuestRunPlan& plan, uint64_t memory_mib) {
  const int64_t seconds = plan.duration_ns / 1'000'000'000 + kPatienceSeconds;
  Command command = {plan.skiff,   "run",
                     "--kernel",   plan.payload,
                     "--cpus",     std::to_string(options.cpus),
                     "--memory",   fmt::format("{}M", memory_mib),
                     "--debugcon", "stdio",
                     "--on-reset", "exit",
                     "--timeout",  std::to_string(std::min<int64_t>(seconds, 86'400)),
                     "--disk",     skiff_disk(options, contestant),
                     "--cmdline",  payload_command_line(options, plan, memory_mib)};
  command.insert(command.end(), options.skiff_args.begin(), options.skiff_args.end());
  return command;
}

Result<std::string> qemu_medium(const GuestBenchOptions& options,
                                const GuestContestant& contestant) {
  if (!block::NullDevice::is_null_path(options.path)) {
    return fmt::format("driver=file,node-name=disk,filename={},aio={},cache.direct={},read-only={}",
                       with_doubled_commas(options.path), contestant.aio,
                       options.direct ? "on" : "off", writes(options.pattern) ? "off" : "on");
  }
  auto null = block::NullDevice::parse(options.path);
  if (!null) return null.error();
  return fmt::format("driver={},node-name=disk,size={},latency-ns={},read-zeroes=off",
                     contestant.aio, null->size_bytes, null->latency_ns);
}

Result<Command> qemu_command(const GuestBenchOptions& options, const GuestContestant& contestant,
                             const GuestRunPlan& plan, uint64_t memory_mib) {
  auto medium = qemu_medium(options, contestant);
  if (!medium) return medium.error();
  std::string device =
      fmt::format("{},drive=disk,iothread=io0,num-queues={},queue-size={}",
                  options.mmio ? "virtio-blk-device" : "virtio-blk-pci,disable-legacy=on",
                  options.queues, options.queue_size);
  Command command = {options.qemu, "-M", "microvm,pcie=on,x-option-roms=off,rtc=off,isa-serial=off",
                     "-accel", "kvm",
                     // Setting that MSR fails on kvm_pvm.
                     "-cpu", "host,-arch-capabilities", "-smp", std::to_string(options.cpus), "-m",
                     std::to_string(memory_mib), "-nodefaults", "-no-user-config", "-display",
                     "none", "-no-reboot", "-name", "bench,debug-threads=on", "-global",
                     "virtio-mmio.force-legacy=false", "-chardev", "stdio,id=out,signal=off",
                     "-device", "isa-debugcon,iobase=0xe9,chardev=out", "-device",
                     "isa-debug-exit,iobase=0xf4,iosize=0x04", "-object",
                     fmt::format("iothread,id=io0,poll-max-ns={}", contestant.poll_us * 1000),
                     "-blockdev", *medium, "-device", device, "-kernel", plan.payload, "-append",
                     payload_command_line(options, plan, memory_mib)};
  command.insert(command.end(), options.qemu_args.begin(), options.qemu_args.end());
  return command;
}

}  // namespace

int64_t guest_warm_up_ns(int64_t duration_ns) {
  constexpr int64_t kMostNs = 200'000'000;
  return std::min(duration_ns / 5, kMostNs);
}

Result<uint64_t> guest_memory_mib(const GuestBenchOptions& options) {
  const BlkTable::Options table{.queue_size = options.queue_size,
                                .depth = options.depth,
                                .block_bytes = static_cast<uint32_t>(options.block_bytes),
                                .indirect = options.indirect};
  const uint64_t each = BlkTable::bytes_needed(table) + sizeof(BlkJob);
  const uint64_t mib = kPayloadMiB + (each * options.queues + kMiB - 1) / kMiB;
  if (mib > kMemoryMaxMiB)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("--bs, --depth and --queues ask for {} MiB of guest memory; {} MiB "
                             "are allowed: lower one of the three",
                             mib, kMemoryMaxMiB));
  // Memory comes in multiples of what everybody takes.
  return std::max(kMemoryMinMiB, (mib + 1) / 2 * 2);
}

std::string payload_command_line(const GuestBenchOptions& options, const GuestRunPlan& plan,
                                 uint64_t memory_mib) {
  std::string text = fmt::format(
      "bench.cpus={} bench.queues={} bench.queue_size={} bench.bs={} bench.depth={} "
      "bench.random={} bench.write_percent={} bench.duration_us={} bench.warmup_us={} "
      "bench.tsc_khz={} bench.ram={} bench.seed={}",
      options.cpus, options.queues, options.queue_size, options.block_bytes, options.depth,
      is_random(options.pattern) ? 1 : 0, write_percent(options.pattern), plan.duration_ns / 1000,
      guest_warm_up_ns(plan.duration_ns) / 1000, plan.tsc_khz, memory_mib * kMiB, plan.seed);
  if (options.rate != 0) text += fmt::format(" bench.rate={}", options.rate);
  if (options.irq) text += " bench.irq=1";
  if (options.mmio) text += " bench.mmio=1";
  if (options.indirect) text += " bench.indirect=1";
  if (options.verify) text += " bench.verify=1";
  if (options.size_bytes != 0)
    text += fmt::format(" bench.blocks={}", options.size_bytes / options.block_bytes);
  return text;
}

Result<Command> guest_command(const GuestBenchOptions& options, const GuestContestant& contestant,
                              const GuestRunPlan& plan) {
  const auto memory_mib = guest_memory_mib(options);
  if (!memory_mib) return memory_mib.error();
  if (contestant.vmm == GuestVmm::kSkiff)
    return skiff_command(options, contestant, plan, *memory_mib);
  return qemu_command(options, contestant, plan, *memory_mib);
}

}  // namespace skiff::vmm
