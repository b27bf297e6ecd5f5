// SPDX-License-Identifier: GPL-2.0-or-later
// WallClock: the host's time of day.
//
// Thread: any. Ownership: none. Nanoseconds since 1970-01-01 00:00 UTC; may jump when the host's
// clock is set. A ManualClock stands in for it in tests.
#pragma once

#include "loop/clock.h"

namespace skiff::devices {

class WallClock final : public loop::Clock {
 public:
  int64_t now_ns() const override;
};

}  // namespace skiff::devices
