// SPDX-License-Identifier: GPL-2.0-or-later
// Fault rules: which requests shall go wrong, and how; written by users and tests.
//
//   op=write,at=1M+64K,error=EIO,p=0.01; op=read,delay=5ms; op=write,torn=3; io=short,p=0.5
//
// Rules are separated by semicolons, their fields by commas or colons (the command line keeps
// commas for itself). Thread: any; values. Ownership: plain values.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "block/block_channel.h"
#include "loop/result.h"

namespace skiff::block {

struct FaultRule {
  static constexpr uint64_t kForEver = std::numeric_limits<uint64_t>::max();
  static constexpr uint32_t kAnyOp = ~uint32_t{0};
  static constexpr uint32_t kRandomSectors = ~uint32_t{0};

  // What the kernel does to a single system call. Finished below the image, so nobody above sees
  // more of it than the time it takes.
  enum class Io : uint8_t {
    kNone,
    kShort,  // Moves only a part.
    kIntr,   // EINTR.
    kAgain,  // EAGAIN.
  };

  // Which requests: the operation, and the range that they touch.
  uint32_t ops = kAnyOp;  // Bit n for BlockOp n.
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = kForEver;
  // When: from the `nth` of them on (the first is 1), each `every`th, at most `times`, and then
  // only with this probability.
  uint64_t nth = 1;
  uint64_t every = 1;
  uint64_t times = kForEver;
  double probability = 1;
  // What: `delay_ns` before anything else; then `error`, of writes, zeroes and discards after
  // `torn_sectors` of 512 bytes.
  int64_t delay_ns = 0;
  int error = 0;
  bool torn = false;
  uint32_t torn_sectors = 0;
  Io io = Io::kNone;
};

struct FaultRules {
  std::vector<FaultRule> rules;  // All that match add their delays; the first error counts.
  uint64_t seed = 1;             // `seed=N`, a rule of its own.

  // An empty text is no rules. kInvalidArgument: names the field, and what is allowed.
  static loop::Result<FaultRules> parse(std::string_view text);
};

}  // namespace skiff::block
