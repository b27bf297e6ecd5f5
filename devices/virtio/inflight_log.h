// SPDX-License-Identifier: GPL-2.0-or-later
// InflightLog: which requests of a split queue are being worked on, in memory that outlives this
// process (vhost-user, "Inflight I/O tracking").
//
// A back end that is killed loses what it knew of the requests it had taken. This log is in memory
// that the front end keeps: whoever serves the queue next finds there which heads were taken and
// never answered, in the order in which they were taken, and carries them out again. The memory is
// the peer's to change at any time: what is read from it is checked here, and a log that makes no
// sense costs the peer its own requests, nothing else.
//
// The order of the stores is what makes it right, whichever instruction the process dies at; each
// function says which. Thread: the queue's home context, but for open(). Ownership: borrows the
// memory, which stays mapped until the queue is stopped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "loop/result.h"

namespace skiff::devices {

class InflightLog {
 public:
  // Room for one queue of this size, a multiple of 64 bytes.
  static uint64_t bytes_for(uint16_t queue_size);

  // A region that is all zeroes becomes a fresh log. kCorrupt when it is too small, misaligned, or
  // holds a log of another version or queue size.
  static loop::Result<InflightLog> open(std::span<std::byte> region, uint16_t queue_size);

  // What to carry out again, oldest first: the heads that were taken and are not in the used ring,
  // whose index is `used_index`. Repairs what a death in the middle of published() left.
  std::vector<uint16_t> recover(uint16_t used_index);

  // Before anything is done for a chain that was popped.
  void taken(uint16_t head);
  // The chain was not worked on after all, or never will be answered.
  void given_back(uint16_t head);
  // Its used element is written, but not shown yet.
  void finished(uint16_t head);
  // The used ring's index was stored just now: what finished since the last time is no longer ours.
  void published(uint16_t used_index);

 private:
  InflightLog(std::byte* header, uint16_t queue_size);
  std::byte* entry(uint16_t head) const;

  std::byte* header_ = nullptr;
  uint16_t queue_size_ = 0;
  uint64_t counter_ = 0;         // Of the next chain taken.
  uint16_t last_finished_ = 0;   // What last_batch_head is, from our own memory.
  std::vector<uint16_t> batch_;  // Finished and not published.
};

}  // namespace skiff::devices
