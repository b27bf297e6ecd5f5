// SPDX-License-Identifier: GPL-2.0-or-later
// EscapeFilter: takes the commands to the VMM out of what is typed: Ctrl-A and a key.
//
// Ctrl-A Ctrl-A is one Ctrl-A for the guest; Ctrl-A with any other key goes to `command`.
// Thread: one at a time. Ownership: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

namespace skiff::devices {

class EscapeFilter {
 public:
  static constexpr uint8_t kEscapeKey = 0x01;  // Ctrl-A

  explicit EscapeFilter(std::function<void(char key)> command) : command_(std::move(command)) {}

  // Moves what is for the guest to the front of `typed` and returns how much that is. A command may
  // be split over two calls.
  size_t filter(std::span<uint8_t> typed) {
    size_t kept = 0;
    for (const uint8_t byte : typed) {
      if (!escaped_ && byte == kEscapeKey) {
        escaped_ = true;
        continue;
      }
      if (escaped_ && byte != kEscapeKey) {
        command_(static_cast<char>(byte));
      } else {
        typed[kept++] = byte;
      }
      escaped_ = false;
    }
    return kept;
  }

 private:
  std::function<void(char)> command_;
  bool escaped_ = false;
};

}  // namespace skiff::devices
