// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/queue_runner.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/log.h"

namespace skiff::devices {

using loop::Priority;
using loop::Result;

Result<std::unique_ptr<QueueRunner>> QueueRunner::create(const Options& options) {
  auto doorbell = loop::EventNotifier::create();
  if (!doorbell) return doorbell.error().with_context("Making a doorbell for", options.name);
  return std::unique_ptr<QueueRunner>(new QueueRunner(options, *std::move(doorbell)));
}

QueueRunner::Active::Active(QueueRunner& its_runner, Seat its_seat)
    : runner(its_runner),
      seat(std::move(its_seat)),
      serve_bh(seat.publisher->home(), Priority::kSubmission, [this] { runner.run(); }),
      doorbell_watch(seat.publisher->home(), *runner.listens_to_, Priority::kSubmission, [this] {
        runner.metrics_.kicks.add(1);
        runner.run();
      }) {
  seat.publisher->join();
}

QueueRunner::Active::~Active() {
  if (polled) seat.publisher->home().remove_poller(runner);
  seat.publisher->leave(runner);
}

void QueueRunner::assert_here() const {
  SKIFF_CHECK(active_ && active_->seat.publisher->home().is_current());
}

void QueueRunner::start(const QueueLayout& layout, uint64_t features, Seat seat) {
  SKIFF_CHECK(!is_running());
  failed_ = false;
  listens_to_ = layout.doorbell != nullptr ? layout.doorbell : &doorbell_;
  active_.emplace(*this, std::move(seat));
  assert_here();
  if (layout.size == 0) return;
  if (layout.size > options_.size_max) return fail("the queue is larger than the device allows");
  if (auto configured = queue_.configure(layout, features); !configured)
    return fail(configured.error().message());
  // The driver may have kicked before we listened.
  active_->serve_bh.schedule();
}

void QueueRunner::drain() {
  if (!active_) return;
  assert_here();
  active_->draining = true;
  schedule_publish();
}

void QueueRunner::stop() {
  active_.reset();
  queue_.release();
}

void QueueRunner::leave() {
  assert_here();
  SKIFF_CHECK(!active_->draining && !active_->serving);
  publish_now();
  active_.reset();
}

void QueueRunner::arrive(Seat seat) {
  SKIFF_CHECK(!is_running());
  active_.emplace(*this, std::move(seat));
  assert_here();
  // Whatever the driver added while nobody listened, with a kick or without.
  active_->serve_bh.schedule();
}

void QueueRunner::schedule() {
  if (!active_) return;
  assert_here();
  active_->serve_bh.schedule();
}

void QueueRunner::kick(int64_t since_ns) {
  assert_here();
  metrics_.kicks.add(1);
  if (since_ns != 0) metrics_.record(QueueStage::kDoorbellToPop, now_ns() - since_ns);
  if (active_->serving) return active_->serve_bh.schedule();
  run();
}

void QueueRunner::complete(uint16_t head, uint32_t written_bytes) {
  assert_here();
  queue_.push_used(head, written_bytes);
  if (!active_->serving) schedule_publish();
}

void QueueRunner::run() {
  assert_here();
  if (active_->draining || failed_ || !queue_.is_configured()) return;
  queue_.disable_notifications();
  active_->watched = false;
  active_->serving = true;
  const QueueHandler::Served served = active_->seat.handler->serve(*this);
  active_->serving = false;
  if (queue_.is_broken()) return fail(queue_.broken_reason());
  publish_now();
  switch (served) {
    case QueueHandler::Served::kAll:
      active_->watched = true;
      rearm();
      return;
    case QueueHandler::Served::kMore:
      return active_->serve_bh.schedule();
    case QueueHandler::Served::kBlocked:
      return;
    case QueueHandler::Served::kBroken:
      return fail("a request breaks the device's rules");
  }
}

// The guest shall kick again. True if it added work just before that, which is served next.
bool QueueRunner::rearm() {
  if (queue_.enable_notifications() == VirtQueue::Rearm::kIdle) return false;
  active_->serve_bh.schedule();
  return true;
}

void QueueRunner::set_polling(Polling polling) {
  assert_here();
  const bool on = polling == Polling::kOn;
  if (std::exchange(active_->polled, on) == on) return;
  loop::EventLoop& home = active_->seat.publisher->home();
  if (on)
    home.add_poller(*this);
  else
    home.remove_poller(*this);
}

bool QueueRunner::is_ready() const {
  return active_->watched && !active_->draining && queue_.has_available();
}

void QueueRunner::begin_polling() {
  if (active_->watched) queue_.suppress_notifications();
}

bool QueueRunner::end_polling() { return active_->watched && !active_->draining && rearm(); }

void QueueRunner::schedule_publish() {
  if (std::exchange(active_->publishing, true)) return;
  active_->seat.publisher->schedule(*this);
}

void QueueRunner::publish_now() {
  if (publish_used()) active_->seat.publisher->transport().interrupt_queue(index());
  published();
}

bool QueueRunner::publish_used() {
  assert_here();
  const bool wanted = queue_.publish_used();
  if (wanted) metrics_.interrupts.add(1);
  if (reaped_weight_ == 0) return wanted;
  const uint32_t weight = std::exchange(reaped_weight_, 0);
  published_ns_ = now_ns();
  published_weight_ = wanted ? weight : 0;
  metrics_.record(QueueStage::kReapToUsed, published_ns_ - reaped_ns_, weight);
  return wanted;
}

void QueueRunner::published() {
  if (published_weight_ != 0)
    metrics_.record(QueueStage::kUsedToInterrupt, now_ns() - published_ns_,
                    std::exchange(published_weight_, 0));
  if (active_->draining && queue_.in_flight() == 0 && !active_->drain_reported) {
    active_->drain_reported = true;
    active_->seat.handler->queue_drained(*this);
  }
}

void QueueRunner::fail(std::string_view reason) {
  failed_ = true;
  SKIFF_LOG_LIMITED(kWarn, "{}: queue {} needs a reset by its driver: {}", options_.name, index(),
                    reason);
  active_->seat.publisher->transport().need_reset();
}

}  // namespace skiff::devices
