// SPDX-License-Identifier: GPL-2.0-or-later
// HeldRequests: requests that a filter keeps back until their time has come.
//
// Thread: the channel's loop. Ownership: borrows the requests; none may be left when it goes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "loop/event_loop.h"

namespace skiff::block {

struct HeldRequest {
  BlockRequest* request = nullptr;
  int64_t due_ns = 0;         // On the loop's clock.
  int32_t result = 0;         // What it is to end with, if the filter says so.
  uint64_t prefix_bytes = 0;  // What is to be done of it before.
  uint64_t sequence = 0;      // Ours: those due at the same time go in the order of their arrival.
};

class HeldRequests {
 public:
  // `release` gets those whose time has come, in a turn of their own.
  HeldRequests(loop::EventLoop& loop, std::function<void(std::span<const HeldRequest>)> release);
  ~HeldRequests();
  HeldRequests(const HeldRequests&) = delete;
  HeldRequests& operator=(const HeldRequests&) = delete;

  void hold(HeldRequest held);
  // All of them, in the next turn, whatever they wait for.
  void release_all();
  uint32_t size() const { return static_cast<uint32_t>(heap_.size()); }

 private:
  void run();
  void arm();

  std::function<void(std::span<const HeldRequest>)> release_;
  std::vector<HeldRequest> heap_;
  uint64_t next_sequence_ = 0;
  loop::EventLoop& loop_;
  loop::Timer timer_;
};

}  // namespace skiff::block
