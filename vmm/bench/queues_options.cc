// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/queues_options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "block/io_engine.h"
#include "devices/virtio/blk/queue_home.h"
#include "loop/result.h"
#include "vmm/bench/bench_words.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_table.h"

namespace skiff::vmm {
namespace {

using devices::SubmitMode;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint32_t kRoundsOfSeveral = 5;
constexpr uint64_t kBlockMax = uint64_t{1} << 20;

Result<void> take_contestants(QueuesBenchOptions& options, const QueuesBenchWords& words) {
  std::vector<std::string> submits;
  SKIFF_RETURN_IF_ERROR(
      take_list(submits, "submit", words.submit, {"iothread", "vcpu", "poll", "none"}));
  std::vector<block::IoEngineKind> engines;
  SKIFF_RETURN_IF_ERROR(take_engines(engines, words.engine));
  for (const std::string& submit : submits) {
    if (submit == "none") continue;
    const SubmitMode mode = submit == "vcpu"   ? SubmitMode::kVcpu
                            : submit == "poll" ? SubmitMode::kPoll
                                               : SubmitMode::kIoThread;
    for (const block::IoEngineKind engine : engines)
      options.contestants.push_back({.submit = mode, .engine = engine});
  }
  for (const std::string& socket : words.sockets) options.contestants.push_back({.socket = socket});
  if (options.contestants.empty())
    return refused_word("submit", words.submit, "none only with --vhost-user");
  return {};
}

Result<void> take_numbers(QueuesBenchOptions& options, const QueuesBenchWords& words) {
  SKIFF_RETURN_IF_ERROR(take_block_bytes(options.block_bytes, words.bs, kBlockMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.depth, "depth", words.depth, BlkTable::kDepthMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.queues, "queues", words.queues, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.threads, "threads", words.threads, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(
      take_number(options.iothreads, "iothreads", words.iothreads, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(take_queue_size(options.queue_size, words.queue_size));
  SKIFF_RETURN_IF_ERROR(take_optional(options.rate, "rate", words.rate, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_duration(options.duration_ns, words.duration));
  return take_size(options.size_bytes, words.size, options.block_bytes);
}

Result<void> check_together(const QueuesBenchOptions& options) {
  SKIFF_RETURN_IF_ERROR(check_queue_depth(options.depth, options.queue_size, options.indirect));
  if (options.threads > options.queues)
    return refused_word("threads", std::to_string(options.threads), "at most --queues");
  const uint64_t buffers = options.block_bytes * options.depth * options.queues;
  if (buffers > kBenchBuffersMax)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("--bs, --depth and --queues ask for {} MiB of buffers; {} MiB are "
                             "allowed: lower one of the three",
                             buffers >> 20, kBenchBuffersMax >> 20));
  const bool in_process = std::ranges::any_of(
      options.contestants, [](const QueuesContestant& one) { return one.socket.empty(); });
  if (in_process && options.path.empty())
    return Error(ErrorKind::kInvalidArgument,
                 "bench queues: no FILE to measure (or --submit none and --vhost-user SOCKET)");
  return check_plot_name(options.plot);
}

}  // namespace

std::string QueuesContestant::name() const {
  if (!socket.empty()) return "vhost-user " + socket.substr(socket.rfind('/') + 1);
  return fmt::format("{} {}", devices::submit_mode_name(submit), block::engine_name(engine));
}

Result<QueuesBenchOptions> parse_queues_bench(const QueuesBenchWords& words) {
  QueuesBenchOptions options;
  options.path = words.path;
  options.indirect = words.indirect;
  options.direct = words.direct;
  options.verify = words.verify;
  options.overwrite = words.overwrite;
  options.json = words.json;
  options.plot = words.plot;
  SKIFF_RETURN_IF_ERROR(take_pattern(options.pattern, words.rw));
  SKIFF_RETURN_IF_ERROR(take_numbers(options, words));
  if (words.completion != "poll" && words.completion != "irq")
    return refused_word("completion", words.completion, "poll or irq");
  options.irq = words.completion == "irq";
  SKIFF_RETURN_IF_ERROR(take_contestants(options, words));
  options.rounds = options.contestants.size() > 1 ? kRoundsOfSeveral : 1;
  SKIFF_RETURN_IF_ERROR(take_optional(options.rounds, "rounds", words.rounds, kBenchRoundsMax));
  SKIFF_RETURN_IF_ERROR(check_together(options));
  return options;
}

}  // namespace skiff::vmm
