// SPDX-License-Identifier: GPL-2.0-or-later
// Console: text for port 0xe9, collected, since each byte that goes out leaves the guest.
//
// Freestanding. Thread: boot processor. Ownership: a value; text beyond its room is lost, which
// makes the document malformed and is therefore seen.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/bench/guest/payload/cpu.h"

namespace skiff::vmm::payload {

class Console {
 public:
  Console& text(const char* text) {
    while (*text != '\0') put(*text++);
    return *this;
  }
  Console& number(uint64_t value) {
    char digits[20];
    size_t count = 0;
    do {
      digits[count++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    while (count != 0) put(digits[--count]);
    return *this;
  }
  // "name": value
  Console& field(const char* name, uint64_t value, bool first = false) {
    return text(first ? "\"" : ", \"").text(name).text("\": ").number(value);
  }
  void flush() {
    for (size_t i = 0; i < used_; ++i) out8(kDebugPort, static_cast<uint8_t>(bytes_[i]));
    used_ = 0;
  }

 private:
  static constexpr uint16_t kDebugPort = 0xe9;
  static constexpr size_t kBytesMax = size_t{64} << 10;

  void put(char c) {
    if (used_ < kBytesMax) bytes_[used_++] = c;
  }

  char bytes_[kBytesMax] = {};
  size_t used_ = 0;
};

// Prints {"error": ...} and ends the machine. `detail` is left out when it is 0.
[[noreturn]] void give_up(const char* message, uint64_t detail = 0);
// isa-debug-exit: status value << 1 | 1.
[[noreturn]] void end_machine(uint8_t value);
// The only one.
Console& console();

}  // namespace skiff::vmm::payload
