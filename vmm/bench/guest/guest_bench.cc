// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_bench.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/disk_turn.h"
#include "vmm/bench/guest/bench_payload.h"
#include "vmm/bench/guest/guest_command.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_process.h"
#include "vmm/bench/guest/guest_result.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/bench/resource_usage.h"
#include "vmm/bench/tsc_rate.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr int64_t kCountingMaxNs = 300'000'000;
constexpr int64_t kPatienceNs = 60'000'000'000;

struct CountedEvent {
  const char* name;
  const char* tracepoint;
};
constexpr std::array<CountedEvent, 5> kEvents = {{{"syscalls", SyscallCounter::kSyscalls},
                                                  {"exits", "kvm/kvm_exit"},
                                                  {"userspace_exits", "kvm/kvm_userspace_exit"},
                                                  {"msis", "kvm/kvm_msi_set_irq"},
                                                  {"wakeups", "sched/sched_wakeup"}}};

DiskBenchOptions floor_options(const GuestBenchOptions& options) {
  DiskBenchOptions floor;
  floor.path = options.path;
  floor.pattern = options.pattern;
  floor.block_bytes = options.block_bytes;
  floor.depth = options.depth;
  floor.jobs = options.queues;
  floor.rate = options.rate * options.queues;
  floor.size_bytes = options.size_bytes;
  floor.direct = options.direct;
  floor.overwrite = true;  // It was asked about before.
  return floor;
}

}  // namespace

GuestBench::GuestBench(GuestBenchOptions options, OnRun on_run,
                       std::unique_ptr<loop::EventLoop> loop, PayloadFile payload)
    : options_(std::move(options)),
      on_run_(std::move(on_run)),
      loop_(std::move(loop)),
      payload_(std::move(payload)) {}

Result<std::unique_ptr<GuestBench>> GuestBench::create(GuestBenchOptions options, OnRun on_run) {
  auto payload = PayloadFile::create();
  if (!payload) return payload.error();
  auto loop = loop::EventLoop::create();
  if (!loop) return loop.error();
  std::unique_ptr<GuestBench> bench(
      new GuestBench(std::move(options), std::move(on_run), *std::move(loop), *std::move(payload)));
  std::error_code error;
  bench->plan_.skiff = std::filesystem::read_symlink("/proc/self/exe", error).string();
  bench->plan_.payload = bench->payload_.path();
  bench->plan_.tsc_khz = tsc_khz();
  if (error) return Error(ErrorKind::kNotFound, "/proc/self/exe: " + error.message());
  return bench;
}

Result<void> GuestBench::guard_data() const {
  if (!writes(options_.pattern) || options_.overwrite) return {};
  if (block::NullDevice::is_null_path(options_.path)) return {};
  return may_overwrite_file(options_.path, options_.size_bytes);
}

Result<GuestBenchResults> GuestBench::run() {
  SKIFF_RETURN_IF_ERROR(guard_data());
  GuestBenchResults results;
  if (options_.floor)
    results.floor =
        EngineResult{.engine = "host " + std::string(block::engine_name(*options_.floor))};
  for (const GuestContestant& contestant : options_.contestants)
    results.guests.push_back({.name = contestant.name()});
  const size_t guests = results.guests.size();
  for (uint32_t round = 1; round <= options_.rounds; ++round) {
    plan_.seed = round;
    if (results.floor) SKIFF_RETURN_IF_ERROR(measure_floor(*results.floor, round));
    // Every second round the other way round, so that nobody always comes after the same.
    for (size_t i = 0; i < guests; ++i) {
      const size_t at = round % 2 == 1 ? i : guests - 1 - i;
      measure(at, round, results.guests[at]);
    }
  }
  for (size_t i = 0; i < guests; ++i) count(i, results.guests[i]);
  const auto failed = [](const GuestResult& guest) { return guest.rounds.empty(); };
  if (std::ranges::all_of(results.guests, failed))
    return Error(ErrorKind::kIo,
                 results.guests[0].name + ": " + results.guests[0].error.value_or("no results"));
  return results;
}

Result<void> GuestBench::measure_floor(EngineResult& result, uint32_t round) {
  const DiskBenchOptions floor = floor_options(options_);
  auto turn = DiskTurn::open(*loop_, floor, *options_.floor);
  if (!turn) return turn.error();
  auto outcome = (*turn)->run(options_.duration_ns / options_.rounds, {});
  if (!outcome) return outcome.error();
  result.rounds.push_back(outcome->sample);
  if (on_run_) on_run_(result.engine, round, outcome->sample.iops());
  return {};
}

Result<GuestSample> GuestBench::run_once(size_t index, int64_t duration_ns,
                                         const GuestHooks& hooks) {
  plan_.duration_ns = duration_ns;
  auto command = guest_command(options_, options_.contestants[index], plan_);
  if (!command) return command.error();
  auto outcome = run_guest_process(*command, duration_ns + kPatienceNs, hooks);
  if (!outcome) return outcome.error();
  auto document = parse_guest_document(outcome->document);
  if (!document) return document.error();
  GuestSample sample;
  sample.guest = *std::move(document);
  sample.boot_ns = outcome->boot_ns;
  sample.threads = std::move(outcome->threads);
  // Requests under way at the end are waited for and count.
  const int64_t measured_ns = sample.guest.ran_ns - guest_warm_up_ns(duration_ns);
  sample.seconds = static_cast<double>(std::max<int64_t>(0, measured_ns)) / 1e9;
  return sample;
}

void GuestBench::measure(size_t index, uint32_t round, GuestResult& result) {
  if (result.error) return;
  auto sample = run_once(index, options_.duration_ns / options_.rounds, {});
  if (!sample) {
    result.error = sample.error().message();
    return;
  }
  if (on_run_) on_run_(result.name, round, sample->iops());
  result.rounds.push_back(*std::move(sample));
}

void GuestBench::count(size_t index, GuestResult& result) {
  if (result.error) return;
  // They count what is started after them.
  std::vector<std::pair<const char*, SyscallCounter>> counters;
  for (const CountedEvent& event : kEvents)
    if (auto counter = SyscallCounter::create(event.tracepoint))
      counters.emplace_back(event.name, *std::move(counter));
  if (counters.empty()) return;
  GuestHooks hooks;
  hooks.on_begin = [&] {
    for (auto& [name, counter] : counters) counter.enable();
  };
  hooks.on_end = [&] {
    for (auto& [name, counter] : counters) counter.disable();
  };
  const int64_t duration_ns = std::min(options_.duration_ns / options_.rounds, kCountingMaxNs);
  const auto sample = run_once(index, duration_ns, hooks);
  if (!sample || sample->guest.requests == 0) return;
  for (const auto& [name, counter] : counters)
    result.counted[name] =
        static_cast<double>(counter.count()) / static_cast<double>(sample->guest.requests);
}

}  // namespace skiff::vmm
