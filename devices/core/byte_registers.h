// SPDX-License-Identifier: GPL-2.0-or-later
// ByteRegisters: a device with registers of one byte, as on the ISA bus, which turns a wider access
// into byte cycles, lowest address first.
//
// Thread: as BusDevice. Ownership: none.
#pragma once

#include <cstdint>
#include <span>

#include "devices/core/bus.h"

namespace skiff::devices {

class ByteRegisters : public BusDevice {
 public:
  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) final {
    for (size_t i = 0; i < data.size(); ++i) data[i] = read_register(offset_bytes + i);
  }
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) final {
    for (size_t i = 0; i < data.size(); ++i) write_register(offset_bytes + i, data[i]);
  }

 protected:
  // Any offset may come; one that is no register reads as 0xff and takes no write.
  virtual uint8_t read_register(uint64_t offset) = 0;
  virtual void write_register(uint64_t offset, uint8_t value) = 0;
};

}  // namespace skiff::devices
