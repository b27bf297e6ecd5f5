// SPDX-License-Identifier: GPL-2.0-or-later
// NbdHandle: libnbd's connection object, owned; and what is said to it in more than one place.
//
// libnbd is a state machine without threads: it wants to know when its socket is ready, and does
// then what it can without waiting. Thread: one at a time; a handle may move to another one.
// Ownership: owns the socket.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "loop/result.h"

namespace skiff::block {

struct CloseNbd {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using NbdHandle = std::unique_ptr<nbd_handle, CloseNbd>;

// The poll events that the state machine waits for.
uint32_t nbd_wanted_events(nbd_handle* handle);
// Tells it what its socket is ready for; false when that ended the connection or went wrong, see
// nbd_error().
bool nbd_feed(nbd_handle* handle, uint32_t poll_events);
bool nbd_is_over(nbd_handle* handle);

// What libnbd said last on this thread.
loop::Error nbd_error(std::string_view what);

}  // namespace skiff::block
