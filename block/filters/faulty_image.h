// SPDX-License-Identifier: GPL-2.0-or-later
// FaultyImage: an image whose requests go wrong as rules say: errors, delays, torn writes.
//
// For tests, and for users who want to see what their guest makes of a bad disk. Faults of single
// system calls (io=) happen further below, in FaultyEngine, where they are repaired: the rules are
// shared. Thread: as BlockBackend; set_faults() from any. Ownership: owns plan and image below.
#pragma once

#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/filters/filter_image.h"

namespace skiff::block {

class FaultyImage final : public FilterImage {
 public:
  FaultyImage(std::unique_ptr<FaultPlan> plan, std::unique_ptr<BlockBackend> below)
      : FilterImage(std::move(below)), plan_(std::move(plan)) {}

  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;
  loop::Result<void> set_faults(FaultRules rules) override;

 private:
  std::unique_ptr<FaultPlan> plan_;  // Lent to the channels below; they go before the images.
};

}  // namespace skiff::block
