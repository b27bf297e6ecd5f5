// SPDX-License-Identifier: GPL-2.0-or-later
// A guest with a few MiB of memory, full of garbage, and what a loader was told about it.
//
// Thread: any. Ownership: owns the memory.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/boot.h"
#include "tests/firmware/kernel_images.h"

namespace skiff::firmware {

class GuestFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kMemoryBytes = 8 << 20;

  GuestFixture() : memory_({{.base = {0}, .host = ram_.data(), .size_bytes = ram_.size()}}) {
    options_.memory_map = make_memory_map(memory_, {});
    options_.acpi_rsdp = {0xe0000};
    options_.command_line = "console=ttyS0";
  }

  loop::Result<BootState> load(const Bytes& file) { return load_kernel(file, options_, memory_); }
  // The message of the error; empty when there was none.
  std::string error_of(const Bytes& file) {
    const auto state = load(file);
    return state ? "" : state.error().message();
  }

  template <typename T>
  T at(uint64_t address) const {
    return *memory_.load<T>({address});
  }
  std::string text_at(uint64_t address) const {
    return reinterpret_cast<const char*>(ram_.data() + address);
  }
  Bytes bytes_at(uint64_t address, uint64_t size_bytes) const {
    const auto bytes = *memory_.translate({address}, size_bytes);
    return {bytes.begin(), bytes.end()};
  }

  // Garbage, so that what has to be zeroed shows.
  std::vector<std::byte> ram_ = std::vector<std::byte>(kMemoryBytes, std::byte{0xa5});
  devices::GuestMemory memory_;
  BootOptions options_;
};

}  // namespace skiff::firmware
