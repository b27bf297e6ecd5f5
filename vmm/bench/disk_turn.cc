// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_turn.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/open_image.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/disk_job.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/bench/request_source.h"
#include "vmm/bench/resource_usage.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr int64_t kTickNs = 100'000'000;
// Threads start, engines learn, caches fill: a tenth of the time, but no longer than this.
constexpr int64_t kWarmUpMaxNs = 200'000'000;
// The second stream's disk: as quick as can be, so that its times are those of the loop.
constexpr const char* kShareDisk = "null:size=1G";
constexpr uint32_t kShareDepth = 64;

}  // namespace

DiskTurn::DiskTurn(loop::EventLoop& loop, const DiskBenchOptions& options)
    : loop_(loop), options_(options) {}

Result<std::unique_ptr<DiskTurn>> DiskTurn::open(loop::EventLoop& loop,
                                                 const DiskBenchOptions& options,
                                                 block::IoEngineKind kind) {
  std::unique_ptr<DiskTurn> turn(new DiskTurn(loop, options));
  SKIFF_RETURN_IF_ERROR(turn->open_images(kind));
  SKIFF_RETURN_IF_ERROR(turn->start_threads());
  return turn;
}

DiskTurn::~DiskTurn() {
  on_all([](Host& host) {
    host.job.reset();
    host.share.reset();
  });
  // A pool goes before the loops that it serves.
  share_image_.reset();
  image_.reset();
  pool_.reset();
}

Result<void> DiskTurn::open_images(block::IoEngineKind kind) {
  auto pool = loop::WorkerPool::create({.name = "bench-pool"});
  if (!pool) return pool.error();
  pool_ = *std::move(pool);
  const auto access =
      writes(options_.pattern) ? block::WriteAccess::kReadWrite : block::WriteAccess::kReadOnly;
  auto image =
      block::open_image({.path = options_.path,
                         .format = block::ImageFormat::kRaw,
                         .access = access,
                         .direct = options_.direct ? block::DirectIo::kOn : block::DirectIo::kOff,
                         .engine = kind,
                         .throttle = options_.throttle},
                        *pool_);
  if (!image) return image.error();
  image_ = *std::move(image);
  if (span_bytes() < options_.block_bytes) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {} has {} bytes, less than one block of --bs {}", options_.path,
                             image_->size_bytes(), options_.block_bytes));
  }
  if (options_.share_rate == 0) return {};
  auto share = block::open_image({.path = kShareDisk, .engine = kind}, *pool_);
  if (!share) return share.error();
  share_image_ = *std::move(share);
  return {};
}

Result<void> DiskTurn::start_threads() {
  for (uint32_t i = 0; i < options_.jobs; ++i) {
    auto thread = loop::IoThread::create({.name = fmt::format("bench{}", i)});
    if (!thread) return thread.error();
    hosts_.push_back(std::make_unique<Host>());
    hosts_.back()->thread = *std::move(thread);
  }
  on_all([this](Host& host) {
    const auto own = [&](const auto& other) { return other.get() == &host; };
    const auto index = std::ranges::find_if(hosts_, own) - hosts_.begin();
    make_jobs(host, static_cast<uint32_t>(index));
  });
  for (const auto& host : hosts_)
    if (const auto& error = host->error) return *error;
  return {};
}

void DiskTurn::make_jobs(Host& host, uint32_t index) {
  loop::EventLoop& loop = host.thread->loop();
  auto channel = image_->open_channel(loop);
  if (!channel) {
    host.error = channel.error();
    return;
  }
  const uint64_t blocks = span_bytes() / options_.block_bytes;
  const auto part = RequestSource::part_of_job(options_.pattern, blocks, index, options_.jobs);
  // The jobs share the rate: each has it in as many seconds as there are jobs.
  host.job = std::make_unique<DiskJob>(
      loop, *std::move(channel),
      DiskJob::Options{
          .source = {options_.pattern, options_.block_bytes, part, uint64_t{index} + 1},
          .block_bytes = options_.block_bytes,
          .depth = options_.depth,
          .rate = options_.rate,
          .rate_period_ns = uint64_t{1'000'000'000} * options_.jobs});
  if (share_image_ == nullptr) return;
  auto share_channel = share_image_->open_channel(loop);
  if (!share_channel) {
    host.error = share_channel.error();
    return;
  }
  constexpr uint64_t kBlock = 4096;
  host.share = std::make_unique<DiskJob>(
      loop, *std::move(share_channel),
      DiskJob::Options{.source = {AccessPattern::kRandRead,
                                  kBlock,
                                  {0, share_image_->size_bytes() / kBlock},
                                  uint64_t{index} + 1},
                       .block_bytes = kBlock,
                       .depth = kShareDepth,
                       .rate = options_.share_rate});
}

uint64_t DiskTurn::span_bytes() const {
  const uint64_t whole = image_->size_bytes();
  return options_.size_bytes == 0 ? whole : std::min(whole, options_.size_bytes);
}

void DiskTurn::on_all(const std::function<void(Host&)>& work) {
  for (const auto& host : hosts_) {
    host->thread->loop().post([this, &work, &host = *host] {
      work(host);
      loop_.post([this] { answer(); });
    });
  }
  wait_for(static_cast<uint32_t>(hosts_.size()));
}

void DiskTurn::answer() {
  if (--answers_due_ == 0) loop_.stop();
}

void DiskTurn::wait_for(uint32_t answers) {
  if (answers == 0) return;
  answers_due_ = answers;  // None has come: this loop has not been turned since they were asked.
  loop_.run();
}

StatusWalk::Finding DiskTurn::look_for_data() {
  auto finding = StatusWalk::Finding::kUnknown;
  std::unique_ptr<StatusWalk> walk;
  std::unique_ptr<block::BlockChannel> channel;
  loop::EventLoop& loop = hosts_.front()->thread->loop();
  loop.post([&] {
    auto opened = image_->open_channel(loop);
    if (!opened) return loop_.post([this] { answer(); });
    channel = *std::move(opened);
    walk = std::make_unique<StatusWalk>(*channel, span_bytes(), [&](StatusWalk::Finding found) {
      finding = found;
      loop_.post([this] { answer(); });
    });
    walk->start();
  });
  wait_for(1);
  loop.post([&] {
    walk.reset();
    channel.reset();
    loop_.post([this] { answer(); });
  });
  wait_for(1);
  return finding;
}

uint64_t DiskTurn::completed() const {
  uint64_t sum = 0;
  for (const auto& host : hosts_) sum += host->job->completed();
  return sum;
}

uint64_t DiskTurn::loop_syscalls() const {
  uint64_t sum = 0;
  for (const auto& host : hosts_) {
    const loop::LoopCounters counters = host->thread->loop().counters();
    sum += counters.enters + counters.wakes;
  }
  return sum;
}

Result<void> DiskTurn::first_failure() const {
  for (const auto& host : hosts_) {
    const auto& failure = host->job->record().failure;
    if (!failure) continue;
    const Error cause = Error::from_errno(
        failure->os_error, fmt::format("Disk {}: a {} of {} bytes at {} failed", options_.path,
                                       block::block_op_name(failure->op), options_.block_bytes,
                                       failure->offset_bytes));
    return Error(ErrorKind::kIo, cause.message(), cause.os_error());
  }
  return {};
}

Result<DiskTurn::Outcome> DiskTurn::run(int64_t duration_ns, const Hooks& hooks) {
  const int64_t begin_ns = loop_.now_ns() + std::min(duration_ns / 10, kWarmUpMaxNs);
  const DiskJob::Span span{begin_ns, begin_ns + duration_ns};
  ResourceUsage usage_at_begin = ResourceUsage::now();
  uint64_t syscalls_at_begin = loop_syscalls();
  loop::Timer begin(loop_, loop::Priority::kRealTime, [&] {
    usage_at_begin = ResourceUsage::now();
    syscalls_at_begin = loop_syscalls();
    if (hooks.on_begin) hooks.on_begin();
  });
  begin.arm_at(begin_ns);
  loop::Timer tick(loop_, loop::Priority::kService, [&] {
    if (hooks.on_tick)
      hooks.on_tick(static_cast<double>(loop_.now_ns() - begin_ns) / 1e9, completed());
    tick.arm_after(kTickNs);
  });
  tick.arm_after(kTickNs);

  uint32_t ends = 0;
  for (const auto& host : hosts_) {
    ends += host->share ? 2 : 1;
    host->thread->loop().post([this, span, &host = *host] {
      const auto ended = [this] { loop_.post([this] { answer(); }); };
      host.job->start(span, ended);
      if (host.share) host.share->start(span, ended);
    });
  }
  wait_for(ends);

  if (hooks.on_end) hooks.on_end();
  const ResourceUsage usage = ResourceUsage::now().since(usage_at_begin);
  Outcome outcome;
  outcome.loop_syscalls = loop_syscalls() - syscalls_at_begin;
  SKIFF_RETURN_IF_ERROR(first_failure());
  RoundSample& sample = outcome.sample;
  sample.cpu_ns = usage.cpu_ns;
  sample.context_switches = usage.context_switches;
  int64_t end_ns = begin_ns;
  for (const auto& host : hosts_) {
    const JobRecord& record = host->job->record();
    sample.reads += record.reads;
    sample.writes += record.writes;
    sample.missed += record.missed;
    sample.latency.merge(record.latency);
    host->job->add_choices(sample.chosen);
    if (host->share) sample.share_latency.merge(host->share->record().latency);
    end_ns = std::max(end_ns, record.end_ns);
  }
  sample.seconds = static_cast<double>(end_ns - begin_ns) / 1e9;
  return outcome;
}

void DiskTurn::stop() {
  for (const auto& host : hosts_) {
    host->thread->loop().post([&host = *host] {
      if (host.job) host.job->stop();
      if (host.share) host.share->stop();
    });
  }
}

}  // namespace skiff::vmm
