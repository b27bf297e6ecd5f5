// SPDX-License-Identifier: GPL-2.0-or-later
// NullDevice: a disk without a medium, which only takes its time: for measurements.
//
// Written null:size=8G,latency=30us,dist=lognormal. Writes go nowhere; reads leave the buffer as it
// is, since filling it would cost more than all that is to be measured. So whoever reads finds what
// was in the memory before: a guest its own, never the host's. Every operation takes the latency:
// flush, discard and write-zeroes too.
// Thread: constant, any. Ownership: a value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "block/block_limits.h"
#include "block/io_device.h"
#include "block/request_fixup.h"
#include "loop/result.h"

namespace skiff::block {

class NullDevice final : public IoDevice {
 public:
  enum class Distribution : uint8_t {
    kConst,
    kLognormal,  // With a mean of `latency_ns` and a sigma of 0.5: p50 0.88 and p99 2.8 times that.
  };
  struct Options {
    uint64_t size_bytes = uint64_t{1} << 30;
    int64_t latency_ns = 0;
    Distribution distribution = Distribution::kConst;
    bool read_only = false;
  };

  static bool is_null_path(std::string_view path) { return path.starts_with("null:"); }
  // "null:" and size=, latency= (ns, us, ms or s; up to 10 s), dist= in any order, all optional.
  // kInvalidArgument, naming what is allowed.
  static loop::Result<Options> parse(std::string_view path);

  explicit NullDevice(const Options& options, std::string name = "null:");

  const IoTarget& target() const override { return target_; }
  const std::string& name() const override { return name_; }
  bool is_read_only() const override { return options_.read_only; }
  uint64_t size_bytes() const override { return options_.size_bytes; }
  const BlockLimits& limits() const override { return limits_; }

  bool has_latency() const { return options_.latency_ns > 0; }
  // How long one request takes. `seed` is any number that differs from request to request: no
  // generator's state is shared among threads. Equal seeds, equal latencies.
  int64_t latency_ns(uint64_t seed) const;
  // Bytes or -errno, as a block device of this size would answer: short at its end, 0 for a read
  // and -ENOSPC for a write behind it.
  int32_t result_of(IoOp op, uint64_t offset_bytes, uint64_t length_bytes) const;

 private:
  const Options options_;
  const std::string name_;
  IoTarget target_;
  BlockLimits limits_;
};

}  // namespace skiff::block
