// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/blk_queue_control.h"

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/queue_metrics.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::devices {

loop::Result<std::unique_ptr<BlkQueueControl>> BlkQueueControl::create(const Options& options) {
  auto runner = QueueRunner::create(options.runner);
  if (!runner) return runner.error();
  return std::unique_ptr<BlkQueueControl>(new BlkQueueControl(options, *std::move(runner)));
}

BlkQueueControl::BlkQueueControl(const Options& options, std::unique_ptr<QueueRunner> runner)
    : shared_(*options.shared),
      publishers_(*options.publishers),
      runner_(std::move(runner)),
      queue_(options.home, options.runner.size_max, *options.shared),
      home_(options.home) {
  kick_.control = this;
  kick_.priority = loop::Priority::kSubmission;
  kick_.run = [](loop::Message& message) {
    auto& kick = static_cast<Kick&>(message);
    BlkQueueControl& self = *kick.control;
    const int64_t since_ns = kick.since_ns;
    // Before the ring is looked at: who kicks from here on sends another one.
    kick.sent.store(false);
    self.runner_->kick(since_ns);
  };
}

BlkQueueControl::~BlkQueueControl() {
  const loop::MutexLock lock(mutex_);
  SKIFF_CHECK(!busy_ && !is_started_);
}

// Steps ------------------------------------------------------------------------------------------

void BlkQueueControl::enqueue(Step step, bool opens) {
  {
    const loop::MutexLock lock(mutex_);
    steps_.push_back({std::move(step), opens});
    if (std::exchange(busy_, true)) return;
  }
  go_on(nullptr);
}

void BlkQueueControl::go_on(const loop::EventLoop* here) {
  std::vector<std::function<void()>> finished;
  while (true) {
    Step step;
    {
      const loop::MutexLock lock(mutex_);
      if (steps_.empty()) {
        finished.swap(finished_);
        busy_ = false;
        break;
      }
      const bool needs_home = is_started_ || steps_.front().opens;
      if (!needs_home || here == home_.loop) {
        step = std::move(steps_.front().step);
        steps_.pop_front();
      }
    }
    if (!step) {
      loop::EventLoop* const home_loop = home().loop;
      return home_loop->post([this, home_loop] { go_on(home_loop); });
    }
    if (!step()) return;
  }
  // Nothing of ours from here on: one of them may be what our owner waits for to destroy us.
  for (const auto& callback : finished) callback();
}

void BlkQueueControl::post_home(std::function<void()> callback) {
  home().loop->post(std::move(callback));
}

QueueHome BlkQueueControl::home() const {
  const loop::MutexLock lock(mutex_);
  return home_;
}

void BlkQueueControl::set_home(const QueueHome& home) {
  const loop::MutexLock lock(mutex_);
  home_ = home;
}

// Start and stop ---------------------------------------------------------------------------------

void BlkQueueControl::start(const QueueLayout& layout, uint64_t features,
                            VirtioTransport& transport) {
  enqueue(
      [this, layout, features, &transport] {
        transport_ = &transport;
        start_here(layout, features);
        return true;
      },
      true);
}

void BlkQueueControl::start_here(const QueueLayout& layout, uint64_t features) {
  const QueueHome here = home();
  queue_.enter(here, open_channel(*here.loop));
  queue_.start(features);
  if (is_drained_) queue_.pause();
  runner_->start(layout, features, {publishers_.publisher_on(*here.loop), this});
  begin_mode();
  const loop::MutexLock lock(mutex_);
  is_started_ = true;
}

std::unique_ptr<block::BlockChannel> BlkQueueControl::open_channel(loop::EventLoop& loop) {
  auto channel = shared_.image->open_channel(loop);
  if (channel) return *std::move(channel);
  SKIFF_LOG_LIMITED(kError, "{}", channel.error().message());
  return nullptr;
}

void BlkQueueControl::stop(std::function<void()> stopped) {
  enqueue([this, stopped = std::move(stopped)] {
    finished_.push_back(stopped);
    if (!runner_->is_running()) return true;
    end_mode();
    queue_.stopping();
    runner_->drain();
    return false;
  });
}

void BlkQueueControl::queue_drained(QueueRunner&) {
  // Posted, because we are inside a callback of the runner that this takes down.
  post_home([this] { finish_stop(); });
}

void BlkQueueControl::finish_stop() {
  if (kicks_are_under_way()) return post_home([this] { finish_stop(); });
  runner_->stop();
  queue_.leave();
  {
    const loop::MutexLock lock(mutex_);
    is_started_ = false;
  }
  go_on(home().loop);
}

// Moves ------------------------------------------------------------------------------------------

void BlkQueueControl::move(const QueueHome& to, std::function<void()> moved) {
  auto move = std::make_shared<Move>();  // Shared only because std::function wants copies.
  move->to = to;
  move->moved = std::move(moved);
  enqueue([this, move] { return begin_move(move); });
}

bool BlkQueueControl::begin_move(const std::shared_ptr<Move>& move) {
  const QueueHome here = home();
  if (!runner_->is_running() || here.loop == move->to.loop) {
    if (runner_->is_running()) end_mode();
    set_home(move->to);
    if (runner_->is_running()) change_mode(move->to.mode);
    finished_.push_back(move->moved);
    return true;
  }
  // First of all a channel there: when there is none, the queue stays where it works.
  move->to.loop->post([this, move] {
    move->channel = open_channel(*move->to.loop);
    post_home([this, move] {
      if (move->channel == nullptr) {
        finished_.push_back(move->moved);
        return go_on(home().loop);
      }
      queue_.pause();
      queue_.when_idle([this, move] { leave_for(move); });
    });
  });
  return false;
}

// Nothing is in flight, and paused it stays so.
void BlkQueueControl::leave_for(const std::shared_ptr<Move>& move) {
  end_mode();
  if (kicks_are_under_way()) return post_home([this, move] { leave_for(move); });
  runner_->leave();
  queue_.leave();
  set_home(move->to);
  post_home([this, move] { arrive(move); });
}

void BlkQueueControl::arrive(const std::shared_ptr<Move>& move) {
  queue_.enter(move->to, std::move(move->channel));
  runner_->arrive({publishers_.publisher_on(*move->to.loop), this});
  queue_.go_on();
  begin_mode();
  moves_.fetch_add(1, std::memory_order_relaxed);
  finished_.push_back(move->moved);
  go_on(move->to.loop);
}

// Modes ------------------------------------------------------------------------------------------

void BlkQueueControl::begin_mode() {
  const QueueHome here = home();
  const bool exits = here.mode == SubmitMode::kVcpu;
  kick_home_.store(exits ? here.loop : nullptr);
  const DoorbellPath path = exits ? DoorbellPath::kExit : DoorbellPath::kKernel;
  if (std::exchange(path_, path) != path) transport_->set_doorbell_path(runner_->index(), path);
  runner_->set_polling(here.mode == SubmitMode::kPoll ? QueueRunner::Polling::kOn
                                                      : QueueRunner::Polling::kOff);
  // After all that: no kick is lost that came one way while we listened the other.
  runner_->schedule();
}

void BlkQueueControl::end_mode() { kick_home_.store(nullptr); }

void BlkQueueControl::change_mode(SubmitMode mode) {
  queue_.set_mode(mode);
  begin_mode();
}

void BlkQueueControl::kick() {
  loop::EventLoop* const home = kick_home_.load(std::memory_order_acquire);
  if (home == nullptr) return runner_->doorbell().notify();
  if (home->is_current()) return runner_->kick();
  send_kick();
}

void BlkQueueControl::send_kick() {
  // Whoever ends the mode waits until nobody is in here.
  kickers_.fetch_add(1);
  loop::EventLoop* const home = kick_home_.load();
  if (home == nullptr) {
    runner_->doorbell().notify();
  } else if (!kick_.sent.exchange(true)) {
    kick_.since_ns = home->now_ns();
    home->post(kick_);
  }
  foreign_kicks_.fetch_add(1, std::memory_order_relaxed);
  foreign_kicker_.store(uint64_t{::pthread_self()}, std::memory_order_relaxed);
  kickers_.fetch_sub(1);
}

bool BlkQueueControl::kicks_are_under_way() const {
  return kickers_.load() != 0 || kick_.sent.load();
}

// The rest ---------------------------------------------------------------------------------------

void BlkQueueControl::retry() {
  enqueue([this] {
    if (runner_->is_running()) queue_.retry();
    return true;
  });
}

void BlkQueueControl::quiesce(const block::DrainTicket& ticket) {
  enqueue([this, ticket] {
    is_drained_ = true;
    if (!runner_->is_running()) {
      ticket.acknowledge();
      return true;
    }
    queue_.pause();
    queue_.when_idle([ticket] { ticket.acknowledge(); });
    return true;
  });
}

void BlkQueueControl::resume() {
  enqueue([this] {
    is_drained_ = false;
    if (runner_->is_running()) queue_.go_on();
    return true;
  });
}

BlkQueueStats BlkQueueControl::stats() const {
  BlkQueueStats stats = copy_of(queue_.metrics(), std::as_const(*runner_).metrics());
  stats.mode = home().mode;
  stats.foreign_kicks = foreign_kicks_.load(std::memory_order_relaxed);
  stats.foreign_kicker = foreign_kicker_.load(std::memory_order_relaxed);
  stats.moves = moves_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace skiff::devices
