// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/fault_plan.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>

#include "block/block_channel.h"
#include "block/block_limits.h"
#include "block/filters/fault_rules.h"
#include "loop/mutex.h"

namespace skiff::block {
namespace {

bool changes_range(BlockOp op) {
  return op == BlockOp::kWrite || op == BlockOp::kWriteZeroes || op == BlockOp::kDiscard;
}

// A flush has no range: only rules for everywhere mean it.
bool touches(const FaultRule& rule, BlockOp op, uint64_t offset_bytes, uint64_t length_bytes) {
  if ((rule.ops >> static_cast<unsigned>(op) & 1) == 0) return false;
  if (op == BlockOp::kFlush) return rule.offset_bytes == 0 && rule.length_bytes == rule.kForEver;
  if (offset_bytes >= rule.offset_bytes)
    return offset_bytes - rule.offset_bytes < rule.length_bytes;
  return rule.offset_bytes - offset_bytes < length_bytes;
}

}  // namespace

FaultPlan::FaultPlan(FaultRules rules) : live_(std::make_shared<Live>(std::move(rules))) {}

void FaultPlan::set(FaultRules rules) {
  auto live = std::make_shared<Live>(std::move(rules));
  const loop::MutexLock lock(mutex_);
  live_ = std::move(live);
  version_.fetch_add(1, std::memory_order_release);
}

FaultDice::FaultDice(FaultPlan& plan)
    : plan_(plan), number_(plan.dice_.fetch_add(1, std::memory_order_relaxed)) {}

void FaultDice::refresh() {
  if (plan_.version_.load(std::memory_order_relaxed) == version_) return;
  const loop::MutexLock lock(plan_.mutex_);
  version_ = plan_.version_.load(std::memory_order_acquire);
  live_ = plan_.live_;
  random_.seed(live_->rules.seed * 0x9e3779b97f4a7c15 + number_);
}

bool FaultDice::is_idle() {
  refresh();
  return live_->rules.rules.empty();
}

uint64_t FaultDice::pick(uint64_t low, uint64_t high) {
  return std::uniform_int_distribution<uint64_t>(low, high)(random_);
}

bool FaultDice::fires(size_t index, BlockOp op, uint64_t offset_bytes, uint64_t length_bytes) {
  const FaultRule& rule = live_->rules.rules[index];
  if (!touches(rule, op, offset_bytes, length_bytes)) return false;
  FaultPlan::Counts& counts = live_->counts[index];
  const uint64_t number = counts.matched.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number < rule.nth || (number - rule.nth) % rule.every != 0) return false;
  if (rule.probability < 1 &&
      std::uniform_real_distribution<double>(0, 1)(random_) >= rule.probability)
    return false;
  if (counts.fired.fetch_add(1, std::memory_order_relaxed) >= rule.times) return false;
  plan_.faults_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

Fault FaultDice::next(const BlockRequest& request) {
  refresh();
  Fault fault;
  for (size_t i = 0; i < live_->rules.rules.size() && fault.result == 0; ++i) {
    const FaultRule& rule = live_->rules.rules[i];
    if (rule.io != FaultRule::Io::kNone) continue;
    if (!fires(i, request.op, request.offset_bytes, request.length_bytes)) continue;
    fault.delay_ns += rule.delay_ns;
    fault.result = -rule.error;
    const uint64_t sectors = request.length_bytes / kSectorBytes;
    if (!rule.torn || !changes_range(request.op) || sectors == 0) continue;
    // Never the whole: that would be a success that lies.
    const uint64_t torn =
        rule.torn_sectors == FaultRule::kRandomSectors ? pick(0, sectors - 1) : rule.torn_sectors;
    fault.prefix_bytes = std::min(torn, sectors - 1) * kSectorBytes;
  }
  return fault;
}

FaultRule::Io FaultDice::next_io(BlockOp op, uint64_t offset_bytes, uint64_t length_bytes) {
  refresh();
  for (size_t i = 0; i < live_->rules.rules.size(); ++i) {
    const FaultRule& rule = live_->rules.rules[i];
    if (rule.io == FaultRule::Io::kNone) continue;
    if (fires(i, op, offset_bytes, length_bytes)) return rule.io;
  }
  return FaultRule::Io::kNone;
}

}  // namespace skiff::block
