// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "block/io_engine.h"
#include "block/nbd/nbd_url.h"
#include "block/null_device.h"
#include "loop/result.h"
#include "vmm/bench/bench_words.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint32_t kRoundsOfSeveral = 5;
constexpr uint64_t kPollMaxUs = 1'000'000;
// One piece of guest memory, in one descriptor.
constexpr uint64_t kBlockMax = uint64_t{1} << 20;

Result<void> take_choice(bool& target, std::string_view option, const std::string& text,
                         std::string_view no, std::string_view yes) {
  if (text != no && text != yes)
    return refused_word(option, text, fmt::format("{} or {}", no, yes));
  target = text == yes;
  return {};
}

Result<void> add_skiffs(GuestBenchOptions& options, const GuestBenchWords& words) {
  std::vector<std::string> submits;
  if (words.submit.empty())
    submits.emplace_back();
  else
    SKIFF_RETURN_IF_ERROR(
        take_list(submits, "submit", words.submit, {"auto", "iothread", "vcpu", "poll"}));
  std::vector<block::IoEngineKind> engines;
  SKIFF_RETURN_IF_ERROR(take_engines(engines, words.engine));
  for (const std::string& submit : submits)
    for (const block::IoEngineKind engine : engines)
      options.contestants.push_back({.vmm = GuestVmm::kSkiff,
                                     .submit = submit,
                                     .engine = std::string(block::engine_name(engine))});
  return {};
}

Result<void> add_qemus(GuestBenchOptions& options, const GuestBenchWords& words) {
  const bool null = block::NullDevice::is_null_path(options.path);
  std::vector<std::string> ways;
  const std::string best = null ? "null-co" : "io_uring";
  const std::vector<std::string_view> allowed =
      null ? std::vector<std::string_view>{"null-co", "null-aio"}
           : std::vector<std::string_view>{"threads", "native", "io_uring"};
  SKIFF_RETURN_IF_ERROR(
      take_list(ways, "qemu-aio", words.qemu_aio.empty() ? best : words.qemu_aio, allowed));
  if (std::ranges::find(ways, "native") != ways.end() && !options.direct)
    return refused_word("qemu-aio", "native", "only with --direct");
  std::vector<uint64_t> polls;
  for (std::string_view rest = words.qemu_poll_us; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(','));
    const auto poll = parse_uint(part, 0, kPollMaxUs);
    if (!poll) return refused_word("qemu-poll-us", part, "0 to 1000000; several with commas");
    polls.push_back(*poll);
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  }
  for (const std::string& way : ways)
    for (const uint64_t poll : polls)
      options.contestants.push_back({.vmm = GuestVmm::kQemu, .aio = way, .poll_us = poll});
  return {};
}

Result<void> add_contestants(GuestBenchOptions& options, const GuestBenchWords& words) {
  std::vector<std::string> vmms;
  SKIFF_RETURN_IF_ERROR(take_list(vmms, "vmm", words.vmm, {"skiff", "qemu"}));
  for (const std::string& vmm : vmms)
    SKIFF_RETURN_IF_ERROR(vmm == "skiff" ? add_skiffs(options, words) : add_qemus(options, words));
  return {};
}

// The host's own way to the file: a blocking call for one request at a time, the ring for more.
Result<void> take_floor(GuestBenchOptions& options, const std::string& text) {
  using block::IoEngineKind;
  if (text == "none") return {};
  if (text.empty()) {
    options.floor = options.depth == 1 ? IoEngineKind::kSync : IoEngineKind::kIoUring;
    return {};
  }
  options.floor = block::parse_engine(text);
  if (!options.floor) return refused_word("floor", text, "none or an engine's name");
  return {};
}

Result<void> check_together(const GuestBenchOptions& options) {
  SKIFF_RETURN_IF_ERROR(check_queue_depth(options.depth, options.queue_size, options.indirect));
  if (options.queues < options.cpus && options.irq && options.mmio)
    return refused_word("queues", std::to_string(options.queues), "as many as --cpus");
  if (options.mmio && options.irq && options.cpus != 1)
    return Error(ErrorKind::kInvalidArgument,
                 "--bus mmio has one interrupt line: --completion irq goes with --cpus 1 only");
  if (block::is_nbd_url(options.path))
    return Error(ErrorKind::kInvalidArgument, "bench guest: FILE is a file or null:...");
  return check_plot_name(options.plot);
}

}  // namespace

std::string GuestContestant::name() const {
  if (vmm == GuestVmm::kQemu) return fmt::format("qemu {} poll={}us", aio, poll_us);
  return submit.empty() ? fmt::format("skiff {}", engine)
                        : fmt::format("skiff {} {}", submit, engine);
}

Result<GuestBenchOptions> parse_guest_bench(const GuestBenchWords& words) {
  GuestBenchOptions options;
  options.path = words.path;
  options.indirect = words.indirect;
  options.direct = words.direct;
  options.verify = words.verify;
  options.overwrite = words.overwrite;
  options.json = words.json;
  options.plot = words.plot;
  options.qemu_args = words.qemu_args;
  options.skiff_args = words.skiff_args;
  options.disk_keys = words.disk_keys;
  if (!words.qemu.empty()) options.qemu = words.qemu;

  SKIFF_RETURN_IF_ERROR(take_pattern(options.pattern, words.rw));
  SKIFF_RETURN_IF_ERROR(take_block_bytes(options.block_bytes, words.bs, kBlockMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.depth, "depth", words.depth, BlkTable::kDepthMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.cpus, "cpus", words.cpus, kGuestCpusMax));
  options.queues = options.cpus;
  SKIFF_RETURN_IF_ERROR(take_optional(options.queues, "queues", words.queues, kGuestCpusMax));
  SKIFF_RETURN_IF_ERROR(take_queue_size(options.queue_size, words.queue_size));
  SKIFF_RETURN_IF_ERROR(take_optional(options.rate, "rate", words.rate, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_duration(options.duration_ns, words.duration));
  SKIFF_RETURN_IF_ERROR(take_choice(options.irq, "completion", words.completion, "poll", "irq"));
  SKIFF_RETURN_IF_ERROR(take_choice(options.mmio, "bus", words.bus, "pci", "mmio"));
  SKIFF_RETURN_IF_ERROR(take_size(options.size_bytes, words.size, options.block_bytes));
  SKIFF_RETURN_IF_ERROR(add_contestants(options, words));
  options.rounds = options.contestants.size() > 1 ? kRoundsOfSeveral : 1;
  SKIFF_RETURN_IF_ERROR(take_optional(options.rounds, "rounds", words.rounds, kBenchRoundsMax));
  SKIFF_RETURN_IF_ERROR(take_floor(options, words.floor));
  SKIFF_RETURN_IF_ERROR(check_together(options));
  return options;
}

}  // namespace skiff::vmm
