// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/late_release.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop/unique_fd.h"

namespace skiff::vmm {

loop::UniqueFd release_late(int fd) {
  io_uring_params parameters{};
  loop::UniqueFd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 1U, &parameters)));
  if (ring && ::syscall(SYS_io_uring_register, ring.get(), IORING_REGISTER_FILES, &fd, 1U) < 0)
    ring.reset();
  return ring;
}

}  // namespace skiff::vmm
