// SPDX-License-Identifier: GPL-2.0-or-later
// ByteRing: a bounded queue of bytes.
//
// Thread: the owner's lock. Ownership: owns its memory, of which only what is used gets touched.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace skiff::devices {

class ByteRing {
 public:
  explicit ByteRing(size_t capacity_bytes)
      : bytes_(std::make_unique_for_overwrite<uint8_t[]>(capacity_bytes)),
        capacity_(capacity_bytes) {}

  size_t capacity() const { return capacity_; }
  size_t size() const { return size_; }
  size_t space() const { return capacity_ - size_; }

  // Appends what fits and returns how much that was.
  size_t push(std::span<const uint8_t> data) {
    const size_t count = std::min(data.size(), space());
    const size_t tail = (head_ + size_) % capacity_;
    const size_t first = std::min(count, capacity_ - tail);
    std::copy_n(data.begin(), first, bytes_.get() + tail);
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(first), count - first, bytes_.get());
    size_ += count;
    return count;
  }

  // Copies the oldest bytes without removing them.
  size_t peek(std::span<uint8_t> into) const {
    const size_t count = std::min(into.size(), size_);
    const size_t first = std::min(count, capacity_ - head_);
    std::copy_n(bytes_.get() + head_, first, into.begin());
    std::copy_n(bytes_.get(), count - first, into.begin() + static_cast<std::ptrdiff_t>(first));
    return count;
  }

  size_t pop(std::span<uint8_t> into) {
    const size_t count = peek(into);
    discard(count);
    return count;
  }

  // Removes the oldest bytes; no more than there are.
  void discard(size_t count) {
    count = std::min(count, size_);
    head_ = (head_ + count) % capacity_;
    size_ -= count;
  }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t capacity_;
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace skiff::devices
