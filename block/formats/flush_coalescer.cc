// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/flush_coalescer.h"

#include <cerrno>
#include <cstdint>
#include <utility>

#include "block/block_channel.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"

namespace skiff::block {

FlushCoalescer::~FlushCoalescer() {
  SKIFF_CHECK(covered_.first == nullptr && later_.first == nullptr);
}

void FlushCoalescer::List::append(BlockRequest& request) {
  request.in_flight.next = nullptr;
  if (first == nullptr)
    first = &request;
  else
    last->in_flight.next = &request;
  last = &request;
}

void FlushCoalescer::add(BlockRequest& request) {
  if (is_collected_) return covered_.append(request);
  if (covered_.first != nullptr) return later_.append(request);
  covered_.append(request);
  start();
}

void FlushCoalescer::start() {
  io_.op = IoOp::kFlush;
  io_.done = &FlushCoalescer::on_io_done;
  io_.owner = this;
  is_collected_ = true;
  client_.collect_flush(io_);
}

void FlushCoalescer::on_io_done(IoRequest& io, int32_t result) {
  auto& self = *static_cast<FlushCoalescer*>(io.owner);
  const List ended = std::exchange(self.covered_, {});
  List waiting = std::exchange(self.later_, {});
  if (result < 0) {
    self.client_.flush_failed(result);
    self.end_all(ended, result);
    return self.end_all(waiting, -EIO);
  }
  if (waiting.first != nullptr) {
    // First, so that the device works while the callbacks run.
    self.covered_ = waiting;
    self.start();
    self.client_.send_collected();
  }
  self.end_all(ended, result);
}

void FlushCoalescer::end_all(List list, int32_t result) {
  while (list.first != nullptr) {
    BlockRequest& request = *list.first;
    list.first = request.in_flight.next;  // Its owner may reuse it at once.
    client_.end_flush(request, result);
  }
}

}  // namespace skiff::block
