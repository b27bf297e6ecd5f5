// SPDX-License-Identifier: GPL-2.0-or-later
// Msix: the vector table and the pending bits of one PCI function (PCI 3.0, 6.8.2).
//
// A vector is open when MSI-X is enabled, neither it nor the function is masked, and the interrupt
// controller has taken its message. Triggering a closed vector sets its pending bit, and opening it
// then sends the message (6.8.3.5).
// Thread: trigger() and is_enabled() from any, the others from vCPU threads and the main loop.
//         The table has one mutex, held while the interrupt controller takes a message (a system
//         call that ends soon); a trigger takes none. One that has begun when a vector is closed
//         may still send, as a message that was under way on the bus.
// Ownership: a device owns it; the sink outlives it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/msi.h"
#include "loop/mutex.h"

namespace skiff::devices {

class Msix {
 public:
  static constexpr uint32_t kEntrySizeBytes = 16;  // 6.8.2, figure 6-11.
  static constexpr uint16_t kVectorsMax = 2048;    // Table Size is 11 bits (6.8.2.3).

  // 1 to kVectorsMax vectors, all masked. `owner` is what the log calls the device.
  Msix(MsiSink& sink, uint16_t vectors, std::string owner);

  uint16_t vector_count() const { return static_cast<uint16_t>(vectors_.size()); }
  uint64_t table_size_bytes() const { return uint64_t{kEntrySizeBytes} * vectors_.size(); }
  // One bit each, in quadwords (6.8.2.10).
  uint64_t pending_size_bytes() const { return (vectors_.size() + 63) / 64 * 8; }

  // Message control as the guest wrote it (6.8.2.3). Callers serialise.
  void set_control(bool enabled, bool function_masked);
  bool is_enabled() const { return enabled_.load(std::memory_order_acquire); }

  // The guest's accesses, of any size and alignment; bytes past the end read as zero. The pending
  // bits cannot be written.
  void read_table(uint64_t offset_bytes, std::span<uint8_t> data) const;
  void write_table(uint64_t offset_bytes, std::span<const uint8_t> data);
  void read_pending(uint64_t offset_bytes, std::span<uint8_t> data) const;

  // The message of a vector that is enabled and not masked; nothing: it would not be sent.
  std::optional<MsiMessage> target(uint16_t vector) const;
  // Hears of each vector whose target may have changed, with no lock held, on the thread that made
  // it change. Once, before the guest runs.
  void set_listener(std::function<void(uint16_t vector)> listener) {
    listener_ = std::move(listener);
  }

  // `vector` is below vector_count(). Nothing happens while MSI-X is disabled.
  void trigger(uint16_t vector);

  // As after power-on: disabled, masked, nothing pending.
  void reset();

 private:
  struct Vector {
    std::atomic<MsiVector*> open{nullptr};  // Null: closed.
    std::atomic<bool> is_pending{false};
    // The table's, under its mutex.
    std::unique_ptr<MsiVector> route;  // Made when the vector is first opened, and kept.
    MsiMessage configured;
    bool is_configured = false;
  };

  MsiMessage message_of(size_t index) const SKIFF_REQUIRES(table_mutex_);
  bool is_masked(size_t index) const SKIFF_REQUIRES(table_mutex_);
  bool is_wanted(size_t index) const SKIFF_REQUIRES(table_mutex_);
  void update(size_t index) SKIFF_REQUIRES(table_mutex_);
  void tell(size_t first, size_t last);
  bool configure(Vector& vector, const MsiMessage& message) SKIFF_REQUIRES(table_mutex_);

  MsiSink& sink_;
  const std::string owner_;
  std::function<void(uint16_t)> listener_;
  std::atomic<bool> enabled_{false};
  mutable loop::Mutex table_mutex_;
  bool function_masked_ SKIFF_GUARDED_BY(table_mutex_) = false;
  std::vector<uint8_t> table_ SKIFF_GUARDED_BY(table_mutex_);
  std::vector<Vector> vectors_;  // Its size never changes.
};

}  // namespace skiff::devices
