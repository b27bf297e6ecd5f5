// SPDX-License-Identifier: GPL-2.0-or-later
// Image locks that Skiff and QEMU both respect, so that neither corrupts the other's disk.
//
// QEMU's file driver (`locking=auto`) holds shared OFD locks on single bytes of the image: byte
// 100 + p for a permission p that it uses, byte 200 + p for one that it lets nobody else use. Who
// comes later looks for the opposite byte. The locks end when the descriptor is closed, by death
// too. Thread: main loop.
#pragma once

#include <cstdint>
#include <string>

#include "loop/result.h"

namespace skiff::block {

enum class ImageAccess : uint8_t {
  kReadOnly,   // Others may read as well.
  kReadWrite,  // Others that promise not to care about our writes may read.
};

// Locks the open image `fd` for as long as its file description lives. kBusy, naming the holder
// where /proc tells, when another process's use conflicts. A file system without locks gives a
// warning and success, as QEMU does.
loop::Result<void> lock_image(int fd, const std::string& path, ImageAccess access);

}  // namespace skiff::block
