// SPDX-License-Identifier: GPL-2.0-or-later
// FaultyImage: an image whose requests go wrong as rules say: errors, delays, torn writes.
//
// For tests, and for users who want to see what their guest makes of a bad disk. Faults of single
// system calls (io=) happen further below, in FaultyEngine, where they are repaired: the rules are
// shared. Thread: as BlockBackend; set_faults() from any. Ownership: owns plan and image below.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"

namespace skiff::block {

class FaultyImage final : public BlockBackend {
 public:
  FaultyImage(std::unique_ptr<FaultPlan> plan, std::unique_ptr<BlockBackend> below)
      : plan_(std::move(plan)), below_(std::move(below)) {}

  uint64_t size_bytes() const override { return below_->size_bytes(); }
  bool is_read_only() const override { return below_->is_read_only(); }
  const BlockLimits& limits() const override { return below_->limits(); }
  const std::string& name() const override { return below_->name(); }
  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;
  loop::Result<void> resize(std::optional<uint64_t> size_bytes) override {
    return below_->resize(size_bytes);
  }
  loop::Result<void> set_faults(FaultRules rules) override;

 private:
  std::unique_ptr<FaultPlan> plan_;  // Used below as well, so it goes last.
  std::unique_ptr<BlockBackend> below_;
};

}  // namespace skiff::block
