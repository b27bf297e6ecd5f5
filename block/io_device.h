// SPDX-License-Identifier: GPL-2.0-or-later
// IoDevice: where the bytes of an image are: a file (FileDevice) or nowhere (NullDevice).
//
// Engines know only its IoTarget, so that each of them works on each device. Thread: made and
// resized on the main loop; the facts may be read anywhere. Ownership: outlives its engines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/block_limits.h"
#include "loop/result.h"

namespace skiff::block {

class NullDevice;

// What an engine is told of the device that it serves.
struct IoTarget {
  int fd = -1;                       // -1 on a NullDevice.
  const NullDevice* null = nullptr;  // Not null: no system call at all, only its latency.
  bool direct_io = false;            // The descriptor has O_DIRECT.
};

class IoDevice {
 public:
  virtual ~IoDevice() = default;
  virtual const IoTarget& target() const = 0;
  virtual const std::string& name() const = 0;  // For messages: the path.
  virtual bool is_read_only() const = 0;
  virtual uint64_t size_bytes() const = 0;
  // As BlockBackend::resize().
  virtual loop::Result<void> resize(std::optional<uint64_t> /*size_bytes*/) {
    return loop::Error(loop::ErrorKind::kUnsupported, "Disk " + name() + " cannot change its size");
  }
  // Unaligned requests are the users' business where the alignment is above 1.
  virtual const BlockLimits& limits() const = 0;
};

}  // namespace skiff::block
