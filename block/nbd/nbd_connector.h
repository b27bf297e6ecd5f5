// SPDX-License-Identifier: GPL-2.0-or-later
// NbdConnector: connected sockets, made on the pool: looking up a name blocks, whatever one does.
//
// Thread: the home loop's throughout; only the lookup and connect(2) are on workers. Ownership:
// borrows the loop and the pool; destroyed only after shut_down() has called back.
#pragma once

#include <cstdint>
#include <functional>

#include "block/nbd/nbd_url.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::block {

// Blocks until connected, refused, timed out or `cancel_fd` readable. The socket is non-blocking.
loop::Result<loop::UniqueFd> connect_to_nbd(const NbdAddress& address, int64_t timeout_ns,
                                            int cancel_fd);

class NbdConnector {
 public:
  using Callback = std::function<void(loop::Result<loop::UniqueFd>)>;
  struct Attempt;

  NbdConnector(loop::EventLoop& loop, loop::WorkerPool& pool, loop::EventNotifier cancel)
      : loop_(loop), pool_(pool), cancel_(std::move(cancel)) {}
  ~NbdConnector();
  NbdConnector(const NbdConnector&) = delete;
  NbdConnector& operator=(const NbdConnector&) = delete;

  // `done` runs in a later turn, unless the attempt is abandoned before; never after that.
  Attempt* start(const NbdAddress& address, int64_t timeout_ns, Callback done);
  static void abandon(Attempt& attempt);
  // Cancels what is under way; `idle` runs when no worker is busy for us any more, perhaps at once.
  void shut_down(std::function<void()> idle);

 private:
  static void run_on_worker(loop::WorkItem& item);
  static void on_done(loop::WorkItem& item);

  loop::EventLoop& loop_;
  loop::WorkerPool& pool_;
  loop::EventNotifier cancel_;
  uint32_t under_way_ = 0;
  std::function<void()> idle_;
};

}  // namespace skiff::block
