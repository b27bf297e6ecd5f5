// SPDX-License-Identifier: GPL-2.0-or-later
// What the words of all benchmarks' command lines mean: numbers, sizes, times, engines, patterns.
//
// Thread: any; pure functions. Errors (kInvalidArgument) name the option, its value and what is
// allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/io_engine.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

loop::Error refused_word(std::string_view option, std::string_view value, std::string_view allowed);

// 1 to `max`.
template <typename T>
loop::Result<void> take_number(T& target, std::string_view option, std::string_view text,
                               uint64_t max);
// The same, but nothing given leaves the target as it is.
template <typename T>
loop::Result<void> take_optional(T& target, std::string_view option, std::string_view text,
                                 uint64_t max) {
  if (text.empty()) return {};
  return take_number(target, option, text, max);
}
// "4k" as well as "4K": that is how people write block sizes.
std::optional<uint64_t> bench_size(std::string_view text);
loop::Result<void> take_block_bytes(uint64_t& target, std::string_view text, uint64_t max);
loop::Result<void> take_engines(std::vector<block::IoEngineKind>& target, std::string_view text);
loop::Result<void> take_duration(int64_t& target, const std::string& text);
loop::Result<void> take_pattern(AccessPattern& target, std::string_view text);
// A power of two from 4 to 1024 (virtio 1.2, 2.7, and what the devices here allow); nothing given
// leaves the target.
loop::Result<void> take_queue_size(uint16_t& target, const std::string& text);
// How much of the disk is used: at least one block. Nothing given: all of it.
loop::Result<void> take_size(uint64_t& target, const std::string& text, uint64_t block_bytes);
// Has a virtqueue room for so many requests?
loop::Result<void> check_queue_depth(uint32_t depth, uint16_t queue_size, bool indirect);
// Of a picture: opened for writing, so a slip must not cost a disk.
loop::Result<void> check_plot_name(const std::string& name);
// "a,b,c", each one of `allowed`; several times the same is allowed.
loop::Result<void> take_list(std::vector<std::string>& target, std::string_view option,
                             std::string_view text, const std::vector<std::string_view>& allowed);

}  // namespace skiff::vmm
