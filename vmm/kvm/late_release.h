// SPDX-License-Identifier: GPL-2.0-or-later
// Lets the kernel take a virtual machine apart after whoever closed it has gone on.
//
// Closing the last descriptor of a VM with interrupt controllers takes 10 to 25 ms: the kernel
// waits for readers once for every device that it takes off a bus. What an io_uring holds as a
// registered file is released by a kernel worker instead, so neither the process's end nor ~Vm
// waits. Thread: any. Ownership: the returned descriptor owns the ring, and the ring a reference to
// `fd`.
#pragma once

#include "loop/unique_fd.h"

namespace skiff::vmm {

// Close `fd` before the result. Without io_uring the result is empty, and closing `fd` takes its
// time.
loop::UniqueFd release_late(int fd);

}  // namespace skiff::vmm
