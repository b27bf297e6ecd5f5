// SPDX-License-Identifier: GPL-2.0-or-later
// Home: the loop an object belongs to, as something clang can check.
//
// Thread: any; assert_here() passes only on the loop's thread.
// Ownership: borrows the loop. Re-bound only while the object is drained.
#pragma once

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/thread_annotations.h"

namespace skiff::loop {

class SKIFF_CAPABILITY("home loop") Home {
 public:
  explicit Home(EventLoop& loop) : loop_(&loop) {}
  // Call first in every public method and in every callback.
  void assert_here() const SKIFF_ASSERT_CAPABILITY(this) { SKIFF_CHECK(loop_->is_current()); }
  EventLoop& loop() const { return *loop_; }

 private:
  EventLoop* loop_;
};

}  // namespace skiff::loop
