// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/bytes.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>

namespace skiff::firmware {

std::string hex(uint64_t value) {
  std::array<char, 24> text;
  std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string size_text(uint64_t size_bytes) {
  constexpr uint64_t kMib = uint64_t{1} << 20;
  if (size_bytes >= kMib && size_bytes % kMib == 0)
    return std::to_string(size_bytes / kMib) + " MiB";
  return std::to_string(size_bytes) + " bytes";
}

}  // namespace skiff::firmware
