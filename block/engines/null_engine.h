// SPDX-License-Identifier: GPL-2.0-or-later
// NullEngine: how the engines that do not block serve a NullDevice: by a timer of the loop.
//
// All of them alike, as on a device without a medium nothing is left that tells them apart. Without
// latency a request completes in the next turn; otherwise one timer serves all that wait, in the
// order of their deadlines. Thread: the home loop's throughout. Ownership: borrows loop and device.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"

namespace skiff::block {

class NullEngine final : public EngineBase {
 public:
  // `kind`: the engine that it stands for.
  NullEngine(IoEngineKind kind, const IoTarget& target, loop::EventLoop& loop);

  std::string_view name() const override { return engine_name(kind_); }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct Waiting {
    int64_t deadline_ns;
    uint64_t sequence;  // Equal deadlines: in the order of submission.
    IoRequest* request;
    bool operator>(const Waiting& other) const {
      return deadline_ns != other.deadline_ns ? deadline_ns > other.deadline_ns
                                              : sequence > other.sequence;
    }
  };

  void on_timer();
  void arm() SKIFF_REQUIRES(home_);

  const IoEngineKind kind_;
  // A heap, the earliest first. Grows to the most that ever waited, then allocates no more.
  std::vector<Waiting> waiting_ SKIFF_GUARDED_BY(home_);
  uint64_t next_sequence_ SKIFF_GUARDED_BY(home_) = 0;
  int64_t armed_for_ns_ SKIFF_GUARDED_BY(home_) = kNever;
  loop::Timer timer_;
};

}  // namespace skiff::block
