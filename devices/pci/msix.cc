// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/msix.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "devices/core/bus.h"
#include "devices/core/msi.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

// Offsets within a table entry (PCI 3.0, 6.8.2.6 to 6.8.2.9).
constexpr size_t kAddress = 0;
constexpr size_t kData = 8;
constexpr size_t kVectorControl = 12;
constexpr uint8_t kVectorMasked = 1 << 0;

// Message Address bits 1:0 must be zero (6.8.2.7), and of Vector Control only the mask bit is there
// (6.8.2.9).
uint8_t writable_bits(size_t offset_in_entry) {
  if (offset_in_entry == kAddress) return 0xfc;
  if (offset_in_entry == kVectorControl) return kVectorMasked;
  return offset_in_entry < kVectorControl ? 0xff : 0;
}

}  // namespace

Msix::Msix(MsiSink& sink, uint16_t vectors, std::string owner)
    : sink_(sink), owner_(std::move(owner)), vectors_(vectors) {
  SKIFF_CHECK(vectors >= 1 && vectors <= kVectorsMax);
  const loop::MutexLock lock(table_mutex_);
  table_.resize(table_size_bytes());
  for (size_t i = 0; i < vectors_.size(); ++i)
    table_[i * kEntrySizeBytes + kVectorControl] = kVectorMasked;  // 6.8.2.9: set after reset.
}

MsiMessage Msix::message_of(size_t index) const {
  const auto entry = std::span(table_).subspan(index * kEntrySizeBytes, kEntrySizeBytes);
  return {.address = load_le(entry.subspan(kAddress, 8)),
          .data = static_cast<uint32_t>(load_le(entry.subspan(kData, 4)))};
}

bool Msix::is_masked(size_t index) const {
  return (table_[index * kEntrySizeBytes + kVectorControl] & kVectorMasked) != 0;
}

bool Msix::configure(Vector& vector, const MsiMessage& message) {
  if (vector.is_configured && vector.configured == message) return true;
  vector.open.store(nullptr);
  vector.is_configured = false;
  if (vector.route == nullptr) {
    loop::Result<std::unique_ptr<MsiVector>> made = sink_.create_vector();
    if (!made) {
      SKIFF_LOG_LIMITED(kWarn, "{}: No MSI-X vector for the guest: {}", owner_,
                        made.error().message());
      return false;
    }
    vector.route = *std::move(made);
  }
  if (auto taken = vector.route->configure(message); !taken) {
    SKIFF_LOG_LIMITED(kWarn, "{}: MSI-X message {:#x}/{:#x} refused: {}", owner_, message.address,
                      message.data, taken.error().message());
    return false;
  }
  vector.configured = message;
  vector.is_configured = true;
  return true;
}

bool Msix::is_wanted(size_t index) const {
  return is_enabled() && !function_masked_ && !is_masked(index);
}

std::optional<MsiMessage> Msix::target(uint16_t vector) const {
  const loop::MutexLock lock(table_mutex_);
  if (!is_wanted(vector)) return std::nullopt;
  return message_of(vector);
}

void Msix::tell(size_t first, size_t last) {
  if (!listener_) return;
  for (size_t i = first; i <= last; ++i) listener_(static_cast<uint16_t>(i));
}

// Brings a vector to what the table and message control say.
void Msix::update(size_t index) {
  Vector& vector = vectors_[index];
  if (!is_wanted(index) || !configure(vector, message_of(index))) return vector.open.store(nullptr);
  vector.open.store(vector.route.get());
  // 6.8.3.5: what came while it was masked is sent once.
  if (vector.is_pending.exchange(false)) vector.route->trigger();
}

void Msix::set_control(bool enabled, bool function_masked) {
  {
    const loop::MutexLock lock(table_mutex_);
    if (is_enabled() == enabled && function_masked_ == function_masked) return;
    enabled_.store(enabled, std::memory_order_release);
    function_masked_ = function_masked;
    for (size_t i = 0; i < vectors_.size(); ++i) update(i);
  }
  tell(0, vectors_.size() - 1);
}

void Msix::read_table(uint64_t offset_bytes, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
  const loop::MutexLock lock(table_mutex_);
  for (size_t i = 0; i < data.size() && offset_bytes < table_.size() - i; ++i)
    data[i] = table_[offset_bytes + i];
}

void Msix::write_table(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (data.empty() || offset_bytes >= table_size_bytes()) return;
  const size_t size = std::min<size_t>(data.size(), table_size_bytes() - offset_bytes);
  const size_t first = offset_bytes / kEntrySizeBytes;
  // A misaligned write may reach into the next entry.
  const size_t last = (offset_bytes + size - 1) / kEntrySizeBytes;
  {
    const loop::MutexLock lock(table_mutex_);
    for (size_t i = 0; i < size; ++i) {
      const size_t at = offset_bytes + i;
      table_[at] = (table_[at] & static_cast<uint8_t>(~writable_bits(at % kEntrySizeBytes))) |
                   (data[i] & writable_bits(at % kEntrySizeBytes));
    }
    for (size_t index = first; index <= last; ++index) update(index);
  }
  tell(first, last);
}

void Msix::read_pending(uint64_t offset_bytes, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
  const loop::MutexLock lock(table_mutex_);
  for (size_t i = 0; i < data.size() && offset_bytes < pending_size_bytes() - i; ++i) {
    const size_t first = (offset_bytes + i) * 8;
    for (size_t bit = 0; bit < 8 && first + bit < vectors_.size(); ++bit) {
      if (vectors_[first + bit].is_pending.load()) data[i] |= static_cast<uint8_t>(1u << bit);
    }
  }
}

void Msix::trigger(uint16_t index) {
  SKIFF_CHECK(index < vectors_.size());
  if (!is_enabled()) return;
  Vector& vector = vectors_[index];
  if (MsiVector* const route = vector.open.load()) return route->trigger();
  vector.is_pending.store(true);
  // If it was opened just now, whoever did that may have looked for pending ones before: one of us
  // sees both.
  MsiVector* const route = vector.open.load();
  if (route != nullptr && vector.is_pending.exchange(false)) route->trigger();
}

void Msix::reset() {
  {
    const loop::MutexLock lock(table_mutex_);
    enabled_.store(false, std::memory_order_release);
    function_masked_ = false;
    std::ranges::fill(table_, uint8_t{0});
    for (size_t i = 0; i < vectors_.size(); ++i) {
      table_[i * kEntrySizeBytes + kVectorControl] = kVectorMasked;
      vectors_[i].open.store(nullptr);
      vectors_[i].is_pending.store(false);
    }
  }
  tell(0, vectors_.size() - 1);
}

}  // namespace skiff::devices
