// SPDX-License-Identifier: GPL-2.0-or-later
// SyncEngine: requests as system calls in submit() itself: no hop, no wake, and nothing else runs
// on the loop meanwhile.
//
// Completions come in the next turn, as every engine's do. Thread: the home loop's throughout.
// Ownership: borrows the loop.
#pragma once

#include <span>
#include <string_view>

#include "block/engines/engine_base.h"

namespace skiff::block {

class SyncEngine final : public EngineBase {
 public:
  SyncEngine(const IoTarget& target, loop::EventLoop& loop) : EngineBase(target, loop) {}

  std::string_view name() const override { return "sync"; }
  void submit(std::span<IoRequest* const> batch) override;
};

}  // namespace skiff::block
