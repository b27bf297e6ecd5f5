// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/queue_runner.h"

#include <cstdint>
#include <memory>
#include <utility>

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

QueueRunner::Active::Active(QueueRunner& runner, VirtioTransport& its_transport,
                            QueueHandler& its_handler)
    : transport(its_transport),
      handler(its_handler),
      serve_bh(*runner.options_.home, Priority::kSubmission, [&runner] { runner.run(); }),
      publish_bh(*runner.options_.home, Priority::kCompletion, [&runner] { runner.publish(); }),
      doorbell_watch(*runner.options_.home, runner.doorbell_, Priority::kSubmission,
                     [&runner] { runner.run(); }) {}

void QueueRunner::start(const QueueLayout& layout, uint64_t features, VirtioTransport& transport,
                        QueueHandler& handler) {
  home_.assert_here();
  SKIFF_CHECK(!is_running());
  active_.emplace(*this, transport, handler);
  if (layout.size == 0) return;
  if (layout.size > options_.size_max) return fail("the queue is larger than the device allows");
  if (auto configured = queue_.configure(layout, features); !configured)
    return fail(configured.error().message());
  // The driver may have kicked before we listened.
  active_->serve_bh.schedule();
}

void QueueRunner::drain() {
  home_.assert_here();
  if (!active_) return;
  active_->draining = true;
  active_->publish_bh.schedule();
}

void QueueRunner::stop() {
  home_.assert_here();
  active_.reset();
  queue_.release();
}

void QueueRunner::schedule() {
  home_.assert_here();
  if (active_) active_->serve_bh.schedule();
}

void QueueRunner::complete(uint16_t head, uint32_t written_bytes) {
  home_.assert_here();
  SKIFF_CHECK(active_);
  queue_.push_used(head, written_bytes);
  if (!active_->serving) active_->publish_bh.schedule();
}

void QueueRunner::run() {
  home_.assert_here();
  SKIFF_CHECK(active_);
  if (active_->draining || active_->failed || !queue_.is_configured()) return;
  queue_.disable_notifications();
  active_->serving = true;
  const QueueHandler::Served served = active_->handler.serve(*this);
  active_->serving = false;
  if (queue_.is_broken()) return fail(queue_.broken_reason());
  publish();
  switch (served) {
    case QueueHandler::Served::kAll:
      // Closes the race with a guest that added work just before notifications came back on.
      if (queue_.enable_notifications() == VirtQueue::Rearm::kMoreAvailable)
        active_->serve_bh.schedule();
      return;
    case QueueHandler::Served::kMore:
      return active_->serve_bh.schedule();
    case QueueHandler::Served::kBlocked:
      return;
    case QueueHandler::Served::kBroken:
      return fail("a request breaks the device's rules");
  }
}

void QueueRunner::publish() {
  home_.assert_here();
  SKIFF_CHECK(active_);
  if (queue_.publish_used()) active_->transport.interrupt_queue(index());
  if (active_->draining && queue_.in_flight() == 0 && !active_->drain_reported) {
    active_->drain_reported = true;
    active_->handler.queue_drained(*this);
  }
}

void QueueRunner::fail(std::string_view reason) {
  SKIFF_CHECK(active_);
  active_->failed = true;
  SKIFF_LOG_LIMITED(kWarn, "{}: queue {} needs a reset by its driver: {}", options_.name, index(),
                    reason);
  active_->transport.need_reset();
}

}  // namespace skiff::devices
