// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers with units, as users write them in disk options.
//
// Thread: any. Ownership: plain values. Nothing is returned for what is no number, has another
// unit, or is above `most`.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace skiff::block {

inline constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

std::optional<uint64_t> parse_count(std::string_view text, uint64_t most = kNoLimit);
// Bytes: 512, 64K, 8G; K, M, G and T are powers of 1024.
std::optional<uint64_t> parse_bytes(std::string_view text, uint64_t most = kNoLimit);
// Nanoseconds: 250ns, 30us, 5ms, 1s; 0 needs no unit.
std::optional<uint64_t> parse_time_ns(std::string_view text, uint64_t most = kNoLimit);

}  // namespace skiff::block
