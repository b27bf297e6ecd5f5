// SPDX-License-Identifier: GPL-2.0-or-later
// AlignedBuffer: memory for O_DIRECT, aligned as a device wants it.
//
// Thread: any; move-only value type. Ownership: owns the bytes, which start out indeterminate.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace skiff::block {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // `alignment` is a power of two.
  AlignedBuffer(size_t size_bytes, size_t alignment)
      : bytes_(static_cast<std::byte*>(::operator new(size_bytes, std::align_val_t{alignment})),
               Free{std::align_val_t{alignment}}),
        size_bytes_(size_bytes) {}

  std::byte* data() const { return bytes_.get(); }
  size_t size_bytes() const { return size_bytes_; }
  std::span<std::byte> bytes() const { return {bytes_.get(), size_bytes_}; }

 private:
  struct Free {
    std::align_val_t alignment;
    void operator()(std::byte* bytes) const { ::operator delete(bytes, alignment); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  size_t size_bytes_ = 0;
};

}  // namespace skiff::block
