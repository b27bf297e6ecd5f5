// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/null_device.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "block/block_limits.h"
#include "block/request_fixup.h"
#include "block/units.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;
constexpr uint64_t kMaxLatencyNs = 10'000'000'000;
constexpr double kSigma = 0.5;

bool assign_field(NullDevice::Options& options, std::string_view key, std::string_view value) {
  if (key == "size") {
    const auto size = parse_bytes(value, kMaxBytes);
    if (!size || *size < kSectorBytes || *size % kSectorBytes != 0) return false;
    options.size_bytes = *size;
    return true;
  }
  if (key == "latency") {
    const auto latency = parse_time_ns(value, kMaxLatencyNs);
    if (!latency) return false;
    options.latency_ns = static_cast<int64_t>(*latency);
    return true;
  }
  using Distribution = NullDevice::Distribution;
  if (key != "dist" || (value != "const" && value != "lognormal")) return false;
  options.distribution = value == "const" ? Distribution::kConst : Distribution::kLognormal;
  return true;
}

// splitmix64's last step: every bit of the seed moves every bit of the outcome.
uint64_t mix(uint64_t seed) {
  seed += 0x9e3779b97f4a7c15;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111eb;
  return seed ^ (seed >> 31);
}

// Uniform in (0, 1].
double uniform(uint32_t bits) { return (static_cast<double>(bits) + 1.0) / 4294967296.0; }

}  // namespace

Result<NullDevice::Options> NullDevice::parse(std::string_view path) {
  Options options;
  std::string_view rest = path.substr(std::min(path.size(), std::string_view("null:").size()));
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view field = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const size_t equals = field.find('=');
    if (equals == std::string_view::npos ||
        !assign_field(options, field.substr(0, equals), field.substr(equals + 1))) {
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("Disk {}: {} is not possible (allowed: size=512 to 4194304T, a "
                               "multiple of 512; latency=0 to 10s like 30us; dist=const or "
                               "lognormal)",
                               path, field));
    }
  }
  return options;
}

NullDevice::NullDevice(const Options& options, std::string name)
    : options_(options), name_(std::move(name)) {
  target_.null = this;
  limits_.discard = true;
  limits_.write_zeroes = true;
}

int64_t NullDevice::latency_ns(uint64_t seed) const {
  if (options_.distribution == Distribution::kConst) return options_.latency_ns;
  const uint64_t bits = mix(seed);
  // Box and Muller: a normal deviate from two uniform ones.
  const double radius = std::sqrt(-2.0 * std::log(uniform(static_cast<uint32_t>(bits >> 32))));
  const double normal =
      radius * std::cos(2.0 * std::numbers::pi * uniform(static_cast<uint32_t>(bits)));
  const auto mean = static_cast<double>(options_.latency_ns);
  return static_cast<int64_t>(mean * std::exp(kSigma * normal - kSigma * kSigma / 2.0));
}

int32_t NullDevice::result_of(IoOp op, uint64_t offset_bytes, uint64_t length_bytes) const {
  if (op == IoOp::kFlush) return 0;
  const uint64_t room = options_.size_bytes - std::min(offset_bytes, options_.size_bytes);
  if (op == IoOp::kDiscard || op == IoOp::kWriteZeroes)
    return length_bytes == 0 || length_bytes > room ? -EINVAL : 0;
  if (op == IoOp::kWrite && room == 0 && length_bytes > 0) return -ENOSPC;
  return static_cast<int32_t>(std::min(length_bytes, room));
}

}  // namespace skiff::block
