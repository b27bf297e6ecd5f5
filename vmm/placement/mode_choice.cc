// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/mode_choice.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "devices/virtio/blk/queue_home.h"

namespace skiff::vmm {
namespace {

using devices::submit_mode_name;
using devices::SubmitMode;

constexpr std::array kModes = {SubmitMode::kIoThread, SubmitMode::kVcpu, SubmitMode::kPoll};
constexpr double kNever = std::numeric_limits<double>::infinity();

// What a vCPU spends on submitting and reaping a request, which it could have given to the guest.
constexpr double kSubmitNs = 2000;
constexpr double kPollNs = 300;        // To see the guest's index move in another CPU's cache.
constexpr double kSpinPrice = 0.05;    // A nanosecond of spinning on a CPU that nobody else wants.
constexpr double kSpareCores = 0.5;    // Below it an IOThread waits for a CPU first.
constexpr double kPollSpareCores = 1;  // Spinning takes one, besides what is left for others.

constexpr double kClearlyCheaper = 0.8;
constexpr int kBetterPeriods = 3;
constexpr double kWorthExploring = 3;  // Times the cost of the present mode: models err.
constexpr int64_t kExploreAfterNs = 2'000'000'000;
constexpr int kTrialPeriods = 3;
constexpr double kLossTolerated = 0.97;
constexpr double kGainOfExploring = 1.05;
constexpr int64_t kBanFirstNs = 10'000'000'000;
constexpr int64_t kBanMaxNs = 600'000'000'000;
constexpr double kSteadySpread = 0.15;

double iothread_cost(const ModeFacts& facts) {
  // One wake for the doorbell, one for the device's answer; a busy thread needs neither.
  const double asleep = std::clamp(1 - facts.thread_load, 0.0, 1.0);
  const double wakes = 2 * facts.wake_ns * asleep / facts.batch;
  return facts.idle_cores < kSpareCores ? wakes + facts.wake_ns / facts.batch + kSubmitNs : wakes;
}

double vcpu_cost(const ModeFacts& facts) {
  // One exit to submit, one to reap. With one request at a time the guest waits anyway.
  const double exits = 2 * facts.exit_ns / facts.batch;
  const bool takes_guest_time = facts.depth > 1.5 || facts.idle_cores < kSpareCores;
  return takes_guest_time ? exits + kSubmitNs : exits;
}

double poll_cost(const ModeFacts& facts) {
  if (facts.idle_cores < kPollSpareCores || facts.poll_max_ns <= 0) return kNever;
  const double gap = 1e9 / std::max(facts.requests_per_s, 1.0) * facts.batch;
  const double miss = std::exp(-facts.poll_max_ns / gap);
  return kPollNs + 2 * facts.wake_ns * miss / facts.batch +
         kSpinPrice * std::min(gap, facts.poll_max_ns);
}

std::string in_us(double ns) {
  return ns == kNever ? std::string("no") : fmt::format("{:.1f} us", ns / 1000);
}

}  // namespace

ModeVerdict judge_modes(const ModeFacts& given) {
  ModeFacts facts = given;
  facts.batch = std::max(facts.batch, 1.0);
  ModeVerdict verdict;
  verdict.cost_ns = {iothread_cost(facts), vcpu_cost(facts), poll_cost(facts)};
  for (size_t i = 0; i < kSubmitModes; ++i)
    if (!facts.possible[i]) verdict.cost_ns[i] = kNever;
  const auto best = std::ranges::min_element(verdict.cost_ns);
  verdict.best = kModes[static_cast<size_t>(best - verdict.cost_ns.begin())];
  return verdict;
}

std::string explain(const ModeVerdict& verdict, const ModeFacts& facts) {
  return fmt::format(
      "beside the device a request costs {} by iothread, {} by vcpu, {} by poll (wake {}, exit {}, "
      "{:.1f} of {:.0f} cores idle, {:.0f} requests/s, {:.1f} at a time, {:.1f} under way)",
      in_us(verdict.cost(SubmitMode::kIoThread)), in_us(verdict.cost(SubmitMode::kVcpu)),
      in_us(verdict.cost(SubmitMode::kPoll)), in_us(facts.wake_ns), in_us(facts.exit_ns),
      facts.idle_cores, facts.usable_cores, facts.requests_per_s, facts.batch, facts.depth);
}

std::optional<SubmitMode> ModeChooser::step(int64_t now_ns, const ModeFacts& facts) {
  if (facts.requests_per_s < kRequestsPerSecondMin) {
    // A trial that ran out of requests has shown nothing.
    trial_.reset();
    rate_count_ = 0;
    better_periods_ = 0;
    explored_ns_ = 0;
    return std::nullopt;
  }
  facts_ = facts;
  const ModeVerdict verdict = judge_modes(facts);
  if (trial_) return judge_trial(now_ns, facts);
  note_rate(facts.requests_per_s);
  if (explored_ns_ == 0) explored_ns_ = now_ns;

  const auto better = find_candidate(now_ns, verdict, /*exploring=*/false);
  better_periods_ = better ? better_periods_ + 1 : 0;
  if (better && better_periods_ >= kBetterPeriods)
    return begin_trial(now_ns, *better, kLossTolerated);
  if (now_ns - explored_ns_ < kExploreAfterNs || !is_rate_steady()) return std::nullopt;
  const auto other = find_candidate(now_ns, verdict, /*exploring=*/true);
  return other ? begin_trial(now_ns, *other, kGainOfExploring) : std::nullopt;
}

std::optional<SubmitMode> ModeChooser::find_candidate(int64_t now_ns, const ModeVerdict& verdict,
                                                      bool exploring) const {
  const double bound = verdict.cost(mode_) * (exploring ? kWorthExploring : kClearlyCheaper);
  std::optional<SubmitMode> candidate;
  for (const SubmitMode mode : kModes) {
    const double cost = verdict.cost(mode);
    const bool is_open = mode != mode_ && cost != kNever && cost < bound &&
                         now_ns >= bans_[static_cast<size_t>(mode)].until_ns;
    if (is_open && (!candidate || cost < verdict.cost(*candidate))) candidate = mode;
  }
  return candidate;
}

std::optional<SubmitMode> ModeChooser::begin_trial(int64_t now_ns, SubmitMode mode,
                                                   double gain_needed) {
  trial_ = Trial{.from = mode_, .rate_before = mean_rate(), .gain_needed = gain_needed};
  explored_ns_ = now_ns;
  better_periods_ = 0;
  rate_count_ = 0;
  mode_ = mode;
  ++changes_;
  return mode;
}

std::optional<SubmitMode> ModeChooser::judge_trial(int64_t now_ns, const ModeFacts& facts) {
  Trial& trial = *trial_;
  if (++trial.periods > 0) trial.rate_sum += facts.requests_per_s;
  if (trial.periods < kTrialPeriods) return std::nullopt;
  const double rate = trial.rate_sum / kTrialPeriods;
  const SubmitMode tried = mode_;
  const SubmitMode before = trial.from;
  const bool has_failed = rate < trial.rate_before * trial.gain_needed;
  trial_note_ =
      fmt::format("tried {}: {:.0f} requests/s, after {:.0f} by {}; ", submit_mode_name(tried),
                  rate, trial.rate_before, submit_mode_name(before));
  trial_.reset();
  Ban& ban = ban_of(tried);
  if (!has_failed) {
    ban = {};
    return std::nullopt;
  }
  ban.length_ns = std::clamp(2 * ban.length_ns, kBanFirstNs, kBanMaxNs);
  ban.until_ns = now_ns + ban.length_ns;
  mode_ = before;
  ++changes_;
  return before;
}

std::string ModeChooser::why() const {
  if (facts_.requests_per_s == 0) return "too little I/O so far to decide by";
  return trial_note_ + explain(judge_modes(facts_), facts_);
}

void ModeChooser::note_rate(double rate) { rates_[rate_count_++ % kRates] = rate; }

double ModeChooser::mean_rate() const {
  const size_t known = std::min(rate_count_, kRates);
  if (known == 0) return 0;
  return std::accumulate(rates_.begin(), rates_.begin() + static_cast<ptrdiff_t>(known), 0.0) /
         static_cast<double>(known);
}

bool ModeChooser::is_rate_steady() const {
  if (rate_count_ < kRates) return false;
  const auto [least, most] = std::ranges::minmax(rates_);
  return most - least <= kSteadySpread * most;
}

}  // namespace skiff::vmm
