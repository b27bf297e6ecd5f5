// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/queues_options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "block/io_engine.h"
#include "devices/virtio/blk/queue_home.h"
#include "loop/result.h"
#include "vmm/bench/bench_words.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver_options.h"

namespace skiff::vmm {
namespace {

using devices::SubmitMode;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

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

Result<void> check_together(const QueuesBenchOptions& options) {
  if (options.threads > options.queues)
    return refused_word("threads", std::to_string(options.threads), "at most --queues");
  SKIFF_RETURN_IF_ERROR(
      check_buffers(options.block_bytes * options.depth * options.queues, "queues"));
  const bool in_process = std::ranges::any_of(
      options.contestants, [](const QueuesContestant& one) { return one.socket.empty(); });
  if (in_process && options.path.empty())
    return Error(ErrorKind::kInvalidArgument,
                 "bench queues: no FILE to measure (or --submit none and --vhost-user SOCKET)");
  const bool over_sockets = std::ranges::any_of(
      options.contestants, [](const QueuesContestant& one) { return !one.socket.empty(); });
  if (over_sockets && writes(options.pattern) && !options.overwrite)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("--rw {} would destroy what is on the disk behind --vhost-user, and "
                             "whether that is anything cannot be seen from here: --overwrite "
                             "says that it may",
                             pattern_name(options.pattern)));
  return {};
}

}  // namespace

std::string QueuesContestant::name() const {
  const char* more = again ? " again" : "";
  if (!socket.empty()) return "vhost-user " + socket.substr(socket.rfind('/') + 1) + more;
  return fmt::format("{} {}{}", devices::submit_mode_name(submit), block::engine_name(engine),
                     more);
}

Result<QueuesBenchOptions> parse_queues_bench(const QueuesBenchWords& words) {
  QueuesBenchOptions options;
  SKIFF_RETURN_IF_ERROR(take_driver_words(options, words, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.threads, "threads", words.threads, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(
      take_number(options.iothreads, "iothreads", words.iothreads, kBenchQueuesMax));
  SKIFF_RETURN_IF_ERROR(take_contestants(options, words));
  if (words.again) {
    options.contestants.push_back(options.contestants.front());
    options.contestants.back().again = true;
  }
  SKIFF_RETURN_IF_ERROR(take_rounds(options.rounds, words.rounds, options.contestants.size()));
  SKIFF_RETURN_IF_ERROR(check_together(options));
  return options;
}

}  // namespace skiff::vmm
