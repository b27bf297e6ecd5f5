// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_negotiation.h"

#include <libnbd.h>
#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>

#include "block/nbd/nbd_connector.h"
#include "block/nbd/nbd_handle.h"
#include "block/nbd/nbd_url.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::block {

using loop::Error;
using loop::Result;

NbdNegotiation::NbdNegotiation(loop::EventLoop& loop, NbdConnector& connector,
                               const NbdAddress& address, int64_t timeout_ns, Callback done)
    : loop_(loop),
      export_name_(address.export_name),
      done_(std::move(done)),
      timeout_(loop, loop::Priority::kDevice, [this] {
        finish(Error::from_errno(ETIMEDOUT, "The server does not answer the handshake"));
      }) {
  // The connector keeps to the same time, and tells better what it waited for.
  constexpr int64_t kGraceNs = 100'000'000;
  timeout_.arm_after(timeout_ns + kGraceNs);
  attempt_ = connector.start(address, timeout_ns, [this](Result<loop::UniqueFd> socket) {
    attempt_ = nullptr;
    on_socket(std::move(socket));
  });
}

NbdNegotiation::~NbdNegotiation() {
  if (attempt_ != nullptr) NbdConnector::abandon(*attempt_);
  watcher_.reset();
}

void NbdNegotiation::on_socket(Result<loop::UniqueFd> socket) {
  if (!socket) return finish(socket.error());
  handle_.reset(nbd_create());
  if (!handle_) return finish(nbd_error("Making an NBD connection"));
  if (nbd_set_export_name(handle_.get(), export_name_.c_str()) == -1 ||
      nbd_add_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
      nbd_set_tls(handle_.get(), LIBNBD_TLS_DISABLE) == -1 ||
      // Takes the socket, even when it fails.
      nbd_aio_connect_socket(handle_.get(), socket->release()) == -1)
    return finish(nbd_error("Beginning the NBD handshake"));
  watcher_ = std::make_unique<loop::FdWatcher>(
      loop_, nbd_aio_get_fd(handle_.get()), loop::Priority::kDevice,
      [this](uint32_t poll_events) { on_ready(poll_events); });
  if (nbd_is_over(handle_.get())) return finish(nbd_error("The NBD handshake failed"));
  go_on();
}

void NbdNegotiation::on_ready(uint32_t poll_events) {
  if (!nbd_feed(handle_.get(), poll_events)) return finish(nbd_error("The NBD handshake failed"));
  go_on();
}

void NbdNegotiation::go_on() {
  // A quick server has said everything before anybody watched.
  if (nbd_aio_is_ready(handle_.get()) > 0) {
    watcher_.reset();
    return finish(std::move(handle_));
  }
  watcher_->watch(nbd_wanted_events(handle_.get()));
}

void NbdNegotiation::finish(Result<NbdHandle> result) {
  timeout_.cancel();
  if (attempt_ != nullptr) NbdConnector::abandon(*std::exchange(attempt_, nullptr));
  watcher_.reset();
  // Our owner may destroy us in there.
  std::exchange(done_, nullptr)(std::move(result));
}

}  // namespace skiff::block
