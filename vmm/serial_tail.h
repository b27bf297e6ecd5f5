// SPDX-License-Identifier: GPL-2.0-or-later
// SerialTail: remembers the last bytes of a serial port that nobody watches, for when the guest
// dies.
//
// Thread: main loop. Ownership: outlives the backend it makes.
#pragma once

#include <memory>
#include <string>

#include "devices/chardev/char_backend.h"

namespace skiff::vmm {

class SerialTail {
 public:
  static constexpr size_t kBytesMax = 2048;

  std::unique_ptr<devices::CharBackend> make_backend();
  // From the first whole line that is left.
  std::string text() const;

 private:
  class Backend;
  std::string bytes_;
};

}  // namespace skiff::vmm
