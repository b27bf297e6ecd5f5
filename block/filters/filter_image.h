// SPDX-License-Identifier: GPL-2.0-or-later
// FilterImage: an image on top of another one, with that one's facts.
//
// Thread: as BlockBackend. Ownership: owns the image below.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "block/block_channel.h"
#include "block/filters/fault_rules.h"
#include "loop/result.h"

namespace skiff::block {

class FilterImage : public BlockBackend {
 public:
  uint64_t size_bytes() const override { return below_->size_bytes(); }
  bool is_read_only() const override { return below_->is_read_only(); }
  const BlockLimits& limits() const override { return below_->limits(); }
  const std::string& name() const override { return below_->name(); }
  loop::Result<void> resize(std::optional<uint64_t> size_bytes) override {
    return below_->resize(size_bytes);
  }
  loop::Result<void> set_faults(FaultRules rules) override {
    return below_->set_faults(std::move(rules));
  }

 protected:
  explicit FilterImage(std::unique_ptr<BlockBackend> below) : below_(std::move(below)) {}
  BlockBackend& below() const { return *below_; }

 private:
  std::unique_ptr<BlockBackend> below_;
};

}  // namespace skiff::block
