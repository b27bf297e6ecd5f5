// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/probe.h"

#include <sys/uio.h>

#include <cerrno>

namespace skiff::block {

bool supports_nowait(int fd) {
  char byte = 0;
  const iovec iov = {&byte, 1};
  return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

}  // namespace skiff::block
