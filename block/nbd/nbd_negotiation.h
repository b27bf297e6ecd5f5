// SPDX-License-Identifier: GPL-2.0-or-later
// NbdNegotiation: one attempt to get a connection that is ready for requests.
//
// The socket comes from the pool, the handshake is libnbd's state machine on this loop. Thread: the
// home loop's throughout. Ownership: borrows loop and connector; may be destroyed at any time, its
// callback included, and then does not call back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "block/nbd/nbd_connector.h"
#include "block/nbd/nbd_handle.h"
#include "block/nbd/nbd_url.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::block {

class NbdNegotiation {
 public:
  using Callback = std::function<void(loop::Result<NbdHandle>)>;

  // `done` runs in a later turn. `timeout_ns` is for everything together.
  NbdNegotiation(loop::EventLoop& loop, NbdConnector& connector, const NbdAddress& address,
                 int64_t timeout_ns, Callback done);
  ~NbdNegotiation();
  NbdNegotiation(const NbdNegotiation&) = delete;
  NbdNegotiation& operator=(const NbdNegotiation&) = delete;

 private:
  void on_socket(loop::Result<loop::UniqueFd> socket);
  void on_ready(uint32_t poll_events);
  void go_on();
  void finish(loop::Result<NbdHandle> result);

  loop::EventLoop& loop_;
  const std::string export_name_;
  Callback done_;
  NbdConnector::Attempt* attempt_ = nullptr;
  NbdHandle handle_;
  std::unique_ptr<loop::FdWatcher> watcher_;  // Goes before the handle.
  loop::Timer timeout_;
};

}  // namespace skiff::block
