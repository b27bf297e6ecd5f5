// SPDX-License-Identifier: GPL-2.0-or-later
// NbdPatience: how long to wait for an NBD server, and for what.
//
// Thread: any; a value.
#pragma once

#include <cstdint>

namespace skiff::block {

struct NbdPatience {
  // Requests wait so long for a server that has gone, and fail with -EIO after that until it is
  // back; 0: they fail at once.
  uint32_t reconnect_delay_s = 60;
  // A server that is connected and owes an answer for so long counts as gone; 0: never.
  uint32_t reply_timeout_s = 0;
  uint32_t connect_timeout_ms = 10'000;
};

}  // namespace skiff::block
