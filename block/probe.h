// SPDX-License-Identifier: GPL-2.0-or-later
// What a file, on this kernel, really does: found out by trying, never guessed from its kind.
//
// Nothing here writes to the file. Thread: any that may block. Ownership: values.
#pragma once

namespace skiff::block {

// Does a read with RWF_NOWAIT say EAGAIN rather than block? Where it does not, io_uring can only
// serve the file with a kernel thread. Reads one byte, if that is in memory.
bool supports_nowait(int fd);

}  // namespace skiff::block
