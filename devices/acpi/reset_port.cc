// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/acpi/reset_port.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "loop/task.h"

namespace skiff::devices {
namespace {

constexpr uint8_t kFullReset = 0x02;  // Kept; any reset of ours is a full one.
constexpr uint8_t kResetCpu = 0x04;

}  // namespace

void ResetPort::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  if (offset_bytes == kPort - kBasePort && data.size() == 1) {
    data[0] = value_.load(std::memory_order_relaxed);
  } else if (behind_ != nullptr) {
    behind_->bus_read(offset_bytes, data);
  } else {
    std::ranges::fill(data, uint8_t{0xff});
  }
}

void ResetPort::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes == kPort - kBasePort && data.size() == 1) {
    value_.store(data[0] & kFullReset, std::memory_order_relaxed);
    if ((data[0] & kResetCpu) != 0 && on_reset_) on_reset_();
  } else if (behind_ != nullptr) {
    behind_->bus_write(offset_bytes, data);
  }
}

loop::Task<void> ResetPort::reset() {
  value_.store(0, std::memory_order_relaxed);
  co_return;
}

}  // namespace skiff::devices
