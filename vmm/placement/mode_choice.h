// SPDX-License-Identifier: GPL-2.0-or-later
// Which submission mode a queue of `submit=auto` is in, and why.
//
// judge_modes() is the cost model: what a request costs beyond its device in each mode, from what
// was measured on this host. ModeChooser adds patience, and does not take the model's word: a
// change is a trial, which the guest's own rate of requests decides.
// Thread: any, one at a time; time is the caller's. Ownership: values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "devices/virtio/blk/queue_home.h"

namespace skiff::vmm {

using devices::kSubmitModes;

// Of one queue, and of the host, over the last period.
struct ModeFacts {
  // By SubmitMode: whether it is possible at all.
  std::array<bool, kSubmitModes> possible = {true, true, true};
  double wake_ns = 0;  // From a post to a sleeping IOThread to its running.
  double exit_ns = 0;  // A guest's exit to this process and back.
  double idle_cores = 0;
  double usable_cores = 1;
  double poll_max_ns = 0;
  double thread_load = 0;  // Of the IOThread that serves it or would, 0 to 1.
  double requests_per_s = 0;
  double batch = 1;  // Requests taken at a time.
  double depth = 1;  // Requests under way at a time.
};

struct ModeVerdict {
  std::array<double, kSubmitModes> cost_ns = {};  // By SubmitMode; infinite: not possible.
  devices::SubmitMode best = devices::SubmitMode::kIoThread;
  double cost(devices::SubmitMode mode) const { return cost_ns[static_cast<size_t>(mode)]; }
};
ModeVerdict judge_modes(const ModeFacts& facts);
// The numbers behind it, for people.
std::string explain(const ModeVerdict& verdict, const ModeFacts& facts);

class ModeChooser {
 public:
  // Below this nothing is measured well enough to decide by.
  static constexpr double kRequestsPerSecondMin = 200;

  explicit ModeChooser(devices::SubmitMode initial) : mode_(initial) {}

  // Once a period (100 ms). Returns the mode to change to, if any; the change is taken as made.
  std::optional<devices::SubmitMode> step(int64_t now_ns, const ModeFacts& facts);

  devices::SubmitMode mode() const { return mode_; }
  std::string why() const;
  uint64_t changes() const { return changes_; }

 private:
  struct Trial {
    devices::SubmitMode from;
    double rate_before = 0;
    double gain_needed = 1;  // Of the rate; below it the trial has failed.
    double rate_sum = 0;
    int periods = -1;  // The one in which the change was made does not count.
  };
  struct Ban {
    int64_t until_ns = 0;
    int64_t length_ns = 0;
  };
  std::optional<devices::SubmitMode> judge_trial(int64_t now_ns, const ModeFacts& facts);
  std::optional<devices::SubmitMode> begin_trial(int64_t now_ns, devices::SubmitMode mode,
                                                 double gain_needed);
  std::optional<devices::SubmitMode> find_candidate(int64_t now_ns, const ModeVerdict& verdict,
                                                    bool exploring) const;
  void note_rate(double rate);
  bool is_rate_steady() const;
  double mean_rate() const;
  Ban& ban_of(devices::SubmitMode mode) { return bans_[static_cast<size_t>(mode)]; }

  static constexpr size_t kRates = 3;
  devices::SubmitMode mode_;
  ModeFacts facts_;  // That the last decision was made by.
  std::string trial_note_;
  uint64_t changes_ = 0;
  std::optional<Trial> trial_;
  std::array<Ban, kSubmitModes> bans_ = {};
  std::array<double, kRates> rates_ = {};
  size_t rate_count_ = 0;
  int better_periods_ = 0;
  int64_t explored_ns_ = 0;
};

}  // namespace skiff::vmm
