// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/queues_bench.h"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/null_device.h"
#include "devices/vhost_user/frontend.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/tick_scale.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/bench/queues_driver.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/queues_target.h"
#include "vmm/bench/resource_usage.h"
#include "vmm/bench/thread_usage.h"
#include "vmm/bench/tsc_rate.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr int64_t kWarmUpMaxNs = 200'000'000;
constexpr int64_t kCountingMaxNs = 300'000'000;
constexpr uint64_t kFeatureMq = uint64_t{1} << 12;  // VIRTIO_BLK_F_MQ.

uint64_t memory_bytes(const QueuesBenchOptions& options) {
  const uint64_t each =
      BlkTable::bytes_needed({.queue_size = options.queue_size,
                              .depth = options.depth,
                              .block_bytes = static_cast<uint32_t>(options.block_bytes),
                              .indirect = options.indirect});
  constexpr uint64_t kLargePage = uint64_t{2} << 20;
  return (each * options.queues + kLargePage) / kLargePage * kLargePage;
}

uint32_t write_percent(AccessPattern pattern) {
  if (!writes(pattern)) return 0;
  return pattern == AccessPattern::kRandRw ? 50 : 100;
}

// One run of one contestant.
class QueuesRun {
 public:
  QueuesRun(const QueuesBenchOptions& options, const QueuesContestant& contestant, uint32_t round,
            int64_t duration_ns)
      : options_(options), contestant_(contestant), round_(round), duration_ns_(duration_ns) {}

  Result<QueuesSample> measure(const std::function<void()>& on_begin,
                               const std::function<void()>& on_end) {
    auto memory = devices::FrontendMemory::create(memory_bytes(options_));
    if (!memory) return memory.error();
    const bool vcpu =
        contestant_.socket.empty() && contestant_.submit == devices::SubmitMode::kVcpu;
    auto driver = QueuesDriver::create({.threads = options_.threads,
                                        .queues = options_.queues,
                                        .irq = options_.irq,
                                        .with_loops = vcpu,
                                        .tsc_khz = tsc_khz(),
                                        .warm_up_ns = warm_up_ns(),
                                        .duration_ns = duration_ns_});
    if (!driver) return driver.error();
    const auto loops = (*driver)->loops();
    auto opened = contestant_.socket.empty()
                      ? open_device_target(options_, contestant_, memory->memory(), loops)
                      : connect_vhost_target(contestant_.socket, options_.queues, *memory);
    if (!opened) return opened.error();
    std::unique_ptr<QueueTarget> target = *std::move(opened);
    SKIFF_RETURN_IF_ERROR(start(*target, **driver, *memory));
    QueuesSample sample;
    std::vector<ThreadUsage> before;
    std::vector<ThreadUsage> drivers_before;
    const pid_t pid = target->pid();
    (*driver)->run(
        *target,
        [&] {
          before = threads_of(pid);
          if (pid != ::getpid()) drivers_before = threads_of(::getpid());
          on_begin();
        },
        [&] {
          on_end();
          sample.threads = usage_since(before, threads_of(pid));
          if (pid != ::getpid())
            sample.driver_threads = usage_since(drivers_before, threads_of(::getpid()));
        });
    target->stop();
    // It may live on the drivers' loops.
    target.reset();
    (*driver)->finish();
    SKIFF_RETURN_IF_ERROR(collect(**driver, sample));
    return sample;
  }

 private:
  int64_t warm_up_ns() const { return std::min(duration_ns_ / 5, kWarmUpMaxNs); }

  Result<void> start(QueueTarget& target, QueuesDriver& driver,
                     const devices::FrontendMemory& memory) {
    if (target.queue_count() < options_.queues)
      return Error(
          ErrorKind::kInvalidArgument,
          "The device has " + std::to_string(target.queue_count()) + " queues, less than --queues");
    const uint64_t wanted = devices::kVirtioVersion1 | devices::kVirtioRingEventIdx | kFeatureMq |
                            (options_.indirect ? devices::kVirtioRingIndirectDesc : uint64_t{0});
    const uint64_t features = target.features() & wanted;
    if (options_.indirect && (features & devices::kVirtioRingIndirectDesc) == 0)
      return Error(ErrorKind::kUnsupported, "The device has no indirect descriptors");
    const devices::GuestRegion& region = memory.regions().front().region;
    DriverMemory driver_memory(region.host, region.base.value, region.size_bytes);
    uint64_t sectors = target.capacity_sectors();
    if (options_.size_bytes != 0)
      sectors = std::min(sectors, options_.size_bytes / kBlkSectorBytes);
    const uint64_t blocks = sectors / (options_.block_bytes / kBlkSectorBytes);
    if (blocks == 0)
      return Error(ErrorKind::kInvalidArgument, "The disk is smaller than one block of --bs");
    const bool placed = driver.place(
        driver_memory, [&](uint32_t queue) { return job_options(queue, features, blocks); });
    if (!placed) return Error(ErrorKind::kExhausted, "The queues' memory is not enough");
    const auto queues = driver.queues();
    return target.start(
        {.features = features, .queue_size = options_.queue_size, .queues = queues});
  }

  BlkJob::Options job_options(uint32_t queue, uint64_t features, uint64_t blocks) const {
    BlkJob::Options job;
    job.table.queue_size = options_.queue_size;
    job.table.depth = options_.depth;
    job.table.block_bytes = static_cast<uint32_t>(options_.block_bytes);
    job.table.event_idx = (features & devices::kVirtioRingEventIdx) != 0;
    job.table.indirect = options_.indirect;
    job.random = is_random(options_.pattern);
    job.write_percent = write_percent(options_.pattern);
    job.verify = options_.verify;
    job.block_count = blocks;
    job.first_block = blocks / options_.queues * queue;
    job.rate = options_.rate;
    job.seed = (uint64_t{round_} << 16 | (queue + 1)) * 0x9e37'79b9'7f4a'7c15;
    job.scale = TickScale(tsc_khz());
    return job;
  }

  Result<void> collect(const QueuesDriver& driver, QueuesSample& sample) const {
    const TickScale scale(tsc_khz());
    DriverHistogram merged;
    for (const auto& job : driver.jobs()) {
      const BlkJob::Record& record = job->record();
      if (record.failure != BlkJob::Failure::kNone)
        return Error(ErrorKind::kIo, std::string("A request failed: ") +
                                         failure_text(record.failure) + ", at sector " +
                                         std::to_string(record.failed_sector));
      merged.merge(record.latency);
      sample.requests += record.requests;
      sample.kicks += record.kicks;
      sample.batches += record.batches;
      sample.behind_ns =
          std::max(sample.behind_ns, static_cast<int64_t>(scale.to_ns(job->behind_ticks())));
    }
    sample.measured = merged.count();
    sample.seconds = static_cast<double>(duration_ns_) / 1e9;
    sample.interrupts = driver.counts().interrupts;
    sample.driver_sleeps = driver.counts().sleeps;
    for (size_t bucket = 0; bucket < DriverHistogram::kBuckets; ++bucket)
      sample.latency.record_many(
          static_cast<int64_t>(std::min(DriverHistogram::highest_in(bucket), merged.max_ns())),
          merged.count_in(bucket));
    return {};
  }

  const QueuesBenchOptions& options_;
  const QueuesContestant& contestant_;
  const uint32_t round_;
  const int64_t duration_ns_;
};

void count(const QueuesBenchOptions& options, size_t index, QueuesResult& result) {
  if (result.error || !options.contestants[index].socket.empty()) return;
  // Before the threads that it is to count.
  auto counter = SyscallCounter::create();
  if (!counter) return;
  const int64_t duration_ns = std::min(options.duration_ns / options.rounds, kCountingMaxNs);
  QueuesRun run(options, options.contestants[index], 0, duration_ns);
  const auto sample = run.measure([&] { counter->enable(); }, [&] { counter->disable(); });
  if (sample && sample->requests != 0)
    result.syscalls = static_cast<double>(counter->count()) / static_cast<double>(sample->requests);
}

}  // namespace

bool is_driver_thread(const std::string& name) { return name.starts_with("driver"); }

double QueuesSample::serving_ns(bool drivers_serve) const {
  double cpu_ns = 0;
  for (const ThreadUsage& thread : threads)
    if (drivers_serve || !is_driver_thread(thread.name))
      cpu_ns += static_cast<double>(thread.cpu_ns);
  return requests == 0 ? 0 : cpu_ns / static_cast<double>(requests);
}

double QueuesSample::sleeps_of_serving(bool drivers_serve) const {
  double sleeps = 0;
  for (const ThreadUsage& thread : threads)
    if (drivers_serve || !is_driver_thread(thread.name))
      sleeps += static_cast<double>(thread.sleeps);
  return requests == 0 ? 0 : sleeps / static_cast<double>(requests);
}

Result<std::vector<QueuesResult>> run_queues(
    const QueuesBenchOptions& options,
    const std::function<void(const std::string& name, uint32_t round, double iops)>& on_run) {
  const bool guarded = writes(options.pattern) && !options.overwrite && !options.path.empty() &&
                       !block::NullDevice::is_null_path(options.path);
  if (guarded) SKIFF_RETURN_IF_ERROR(may_overwrite_file(options.path, options.size_bytes));
  std::vector<QueuesResult> results;
  for (const QueuesContestant& contestant : options.contestants)
    results.push_back({.name = contestant.name(),
                       .drivers_serve = contestant.socket.empty() &&
                                        contestant.submit == devices::SubmitMode::kVcpu});
  for (uint32_t round = 1; round <= options.rounds; ++round) {
    for (size_t i = 0; i < results.size(); ++i) {
      const size_t at = round % 2 == 1 ? i : results.size() - 1 - i;
      QueuesResult& result = results[at];
      if (result.error) continue;
      QueuesRun run(options, options.contestants[at], round, options.duration_ns / options.rounds);
      auto sample = run.measure([] {}, [] {});
      if (!sample) {
        result.error = sample.error().message();
        continue;
      }
      on_run(result.name, round, sample->iops());
      result.rounds.push_back(*std::move(sample));
    }
  }
  for (size_t i = 0; i < results.size(); ++i) count(options, i, results[i]);
  const auto failed = [](const QueuesResult& result) { return result.rounds.empty(); };
  if (std::ranges::all_of(results, failed))
    return Error(ErrorKind::kIo, results[0].name + ": " + results[0].error.value_or("no results"));
  return results;
}

}  // namespace skiff::vmm
