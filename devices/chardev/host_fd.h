// SPDX-License-Identifier: GPL-2.0-or-later
// HostFd: reads from and writes to a descriptor without ever waiting, whoever else has it open.
//
// stdin and stdout share their file descriptions with the shell and with every other program of the
// job, so O_NONBLOCK must not be set on them: it would be the shell's as well, and would stay after
// we are gone. What is done instead depends on what the descriptor is:
//   socket        MSG_DONTWAIT, which belongs to the call.
//   output to a   Opened a second time through /proc, which makes a description of our own, with
//   pipe or tty   O_NONBLOCK. Where that is refused: poll() first, then no more than certainly fits
//                 (a pipe that polls writable has a page free, POSIX's PIPE_BUF; of a terminal
//                 nothing is certain beyond one byte).
//   input         poll() first; read() then returns what there is. Not opened again: a FIFO opened
//                 after its last writer left would never report the end. Another reader of the same
//                 terminal can still take the bytes in between, as it can from any program.
//   regular file  Plain calls: a file is always ready, its offset is shared on purpose (>> and { a;
//                 b; } > file), and epoll refuses it.
// A reader that went away must not kill the process: making a HostFd for a pipe ignores SIGPIPE.
// Thread: any one at a time. Ownership: owns what it opened or was given, borrows what is shared.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class HostFd {
 public:
  // For a descriptor that came from our parent. Fails when it is not open.
  static loop::Result<HostFd> share_for_reading(int fd);
  static loop::Result<HostFd> share_for_writing(int fd);
  // For one that is ours alone and non-blocking (or a regular file).
  static loop::Result<HostFd> own(loop::UniqueFd fd);

  int fd() const { return fd_; }
  // False: never waited for (regular files, /dev/null); epoll would refuse it.
  bool pollable() const { return pollable_; }

  // Bytes, 0 at the end of input, or -errno; -EAGAIN when it would have to wait.
  ssize_t read(std::span<uint8_t> into) const;
  ssize_t write(std::span<const uint8_t> from) const;

 private:
  enum class Mode : uint8_t { kPlain, kNonBlocking, kSocket, kPollFirst };
  HostFd(loop::UniqueFd owned, int fd, Mode mode, size_t write_limit_bytes);

  loop::UniqueFd owned_;
  int fd_;
  Mode mode_;
  bool pollable_;
  size_t write_limit_bytes_;  // With kPollFirst.
};

}  // namespace skiff::devices
