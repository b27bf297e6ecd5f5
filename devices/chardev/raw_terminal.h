// SPDX-License-Identifier: GPL-2.0-or-later
// RawTerminal: puts a terminal into raw mode and gives it back as it was: when destroyed, at
// exit(), and from the signals of a crash. After SIGKILL nobody can (`reset` or `stty sane` helps).
//
// At most one at a time in a process, because a signal handler can find it only in a static.
// Thread: main loop. Ownership: borrows the descriptor, which stays open meanwhile.
#pragma once

#include <memory>

#include "loop/result.h"

namespace skiff::devices {

class RawTerminal {
 public:
  // kBusy when there is one already.
  static loop::Result<std::unique_ptr<RawTerminal>> create(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  // Async-signal-safe; does nothing when no terminal is in raw mode.
  static void restore_now();
  // Main loop; after SIGCONT. Does nothing when no terminal is in raw mode.
  static void make_raw_again();

 private:
  RawTerminal() = default;
};

}  // namespace skiff::devices
