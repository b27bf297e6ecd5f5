// SPDX-License-Identifier: GPL-2.0-or-later
// EngineBase: what all engines do alike: count, refuse, and complete requests that are over already
// in a later turn.
//
// Thread: the home loop's. Ownership: borrows loop and target.
#pragma once

#include <cstdint>

#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/worker_pool.h"

namespace skiff::block {

// Requests in the order in which they came, linked through themselves.
class RequestList {
 public:
  bool empty() const { return first_ == nullptr; }
  IoRequest& front() const { return *first_; }
  void push_back(IoRequest& request) {
    request.in_flight.next = nullptr;
    (first_ == nullptr ? first_ : last_->in_flight.next) = &request;
    last_ = &request;
  }
  void push_front(IoRequest& request) {
    request.in_flight.next = first_;
    if (first_ == nullptr) last_ = &request;
    first_ = &request;
  }
  IoRequest& pop_front() {
    IoRequest& request = *first_;
    first_ = request.in_flight.next;
    return request;
  }

 private:
  IoRequest* first_ = nullptr;
  IoRequest* last_ = nullptr;  // Of a list that is not empty.
};

class EngineBase : public IoEngine {
 public:
  ~EngineBase() override;
  EngineBase(const EngineBase&) = delete;
  EngineBase& operator=(const EngineBase&) = delete;

  uint32_t in_flight() const override { return in_flight_; }

 protected:
  EngineBase(const IoTarget& target, loop::EventLoop& loop);

  // Starts to count `request`. False when it is impossible: then it completes in the next turn.
  // `fua` is how the engine makes a write durable that asks for it.
  bool begin(IoRequest& request, Fua fua) SKIFF_REQUIRES(home_);
  // The last that the engine does with `request`, and perhaps with itself: its owner may destroy it
  // when nothing is in flight.
  void finish(IoRequest& request, int32_t result) SKIFF_REQUIRES(home_);
  // In the next turn. The way out of submit().
  void finish_later(IoRequest& request, int32_t result) SKIFF_REQUIRES(home_);

  // Does what is left of it on a worker, where it may block.
  void finish_in_pool(IoRequest& request, loop::WorkerPool& pool) SKIFF_REQUIRES(home_);

  const IoTarget target_;
  loop::Home home_;

 private:
  static void run_on_worker(loop::WorkItem& item);
  static void on_worker_done(loop::WorkItem& item);
  void run_finished();

  uint32_t in_flight_ = 0;
  uint32_t finished_count_ SKIFF_GUARDED_BY(home_) = 0;
  RequestList finished_ SKIFF_GUARDED_BY(home_);
  loop::BottomHalf finished_bh_;
};

}  // namespace skiff::block
