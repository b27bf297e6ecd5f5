// SPDX-License-Identifier: GPL-2.0-or-later
// FakeIrqLine: an interrupt wire that remembers its level and its rising edges.
//
// Thread: any. Ownership: the test's.
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/core/irq_line.h"

namespace skiff::devices {

class FakeIrqLine final : public IrqLine {
 public:
  void set_level(bool high) override {
    if (high && !high_.load()) rising_edges_.fetch_add(1);
    high_.store(high);
  }

  bool high() const { return high_.load(); }
  uint32_t rising_edges() const { return rising_edges_.load(); }

 private:
  std::atomic<bool> high_{false};
  std::atomic<uint32_t> rising_edges_{0};
};

}  // namespace skiff::devices
