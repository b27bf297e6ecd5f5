// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/vhost_user_blk.h"

#include <linux/virtio_blk.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/frontend.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::EventNotifier;
using loop::Result;
using loop::Task;

// What the transports offer to every driver, so that every back end must know it.
constexpr uint64_t kNeededFeatures =
    kVirtioVersion1 | kVirtioRingIndirectDesc | kVirtioRingEventIdx;

// Of the configuration, up to what write-zeroes needs: what later versions added is not every back
// end's.
constexpr size_t kConfigBytes = 60;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

// What is the disk's own: the driver's business, which needs nothing of us.
constexpr uint64_t kDiskFeatures =
    bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_GEOMETRY) |
    bit(VIRTIO_BLK_F_RO) | bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_FLUSH) |
    bit(VIRTIO_BLK_F_TOPOLOGY) | bit(VIRTIO_BLK_F_CONFIG_WCE) | bit(VIRTIO_BLK_F_MQ) |
    bit(VIRTIO_BLK_F_DISCARD) | bit(VIRTIO_BLK_F_WRITE_ZEROES);

GuestMemory guest_memory(const std::vector<SharedRegion>& shared) {
  std::vector<GuestRegion> regions;
  regions.reserve(shared.size());
  for (const SharedRegion& one : shared) regions.push_back(one.region);
  return GuestMemory(std::move(regions));
}

// co_await OnWorker(pool, loop, work): `work` on a worker, then on with the task on the loop.
class OnWorker : private loop::WorkItem {
 public:
  OnWorker(loop::WorkerPool& pool, loop::EventLoop& loop, std::function<void()> work)
      : pool_(pool), loop_(loop), work_(std::move(work)) {
    run = [](loop::WorkItem& item) { static_cast<OnWorker&>(item).work_(); };
    done = [](loop::WorkItem& item) { static_cast<OnWorker&>(item).waiter_.resume(); };
    lane = Lane::kLong;
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    pool_.submit(loop_, *this);
  }
  void await_resume() const noexcept {}

 private:
  loop::WorkerPool& pool_;
  loop::EventLoop& loop_;
  std::function<void()> work_;
  std::coroutine_handle<> waiter_;
};

}  // namespace

Result<std::unique_ptr<VhostUserBlk>> VhostUserBlk::create(Options options) {
  auto frontend =
      VhostUserFrontend::connect({.socket = options.socket, .timeout_ns = options.timeout_ns});
  if (!frontend) return frontend.error();
  std::unique_ptr<VhostUserBlk> device(new VhostUserBlk(std::move(options), *std::move(frontend)));
  SKIFF_RETURN_IF_ERROR(device->examine());
  SKIFF_RETURN_IF_ERROR(device->make_queues());
  return device;
}

VhostUserBlk::VhostUserBlk(Options options, std::unique_ptr<VhostUserFrontend> frontend)
    : options_(std::move(options)),
      home_(*options_.main_loop),
      memory_(guest_memory(options_.memory)),
      frontend_(std::move(frontend)),
      reconnect_timer_(*options_.main_loop, loop::Priority::kService,
                       [this] {
                         connect_due_ = true;
                         poke();
                       }),
      tasks_(*options_.main_loop) {}

VhostUserBlk::~VhostUserBlk() { SKIFF_CHECK(!working_); }

Result<void> VhostUserBlk::examine() {
  const uint64_t offered = frontend_->features();
  if ((offered & kNeededFeatures) != kNeededFeatures)
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Vhost-user back end {} lacks virtio features {:#x}", options_.socket,
                             kNeededFeatures & ~offered));
  features_ = offered & kDiskFeatures;
  auto config = fetch_config();
  if (!config) return config.error();
  const loop::MutexLock lock(mutex_);
  config_ = *config;
  return {};
}

Result<void> VhostUserBlk::make_queues() {
  const uint16_t count =
      std::min(std::max<uint16_t>(options_.queues, 1), frontend_->queue_count_max());
  for (uint16_t i = 0; i < count; ++i) {
    auto kick = EventNotifier::create();
    if (!kick) return kick.error();
    auto call = VhostUserFrontend::create_call_eventfd();
    if (!call) return call.error();
    queues_.push_back(std::make_unique<Queue>(*std::move(kick), *std::move(call)));
  }
  const loop::MutexLock lock(mutex_);
  config_.num_queues = count;
  return {};
}

void VhostUserBlk::attach(VirtioTransport& transport) {
  transport_ = &transport;
  for (QueueIndex i = 0; i < queues_.size(); ++i)
    queues_[i]->call_watch.emplace(home_.loop(), queues_[i]->call, loop::Priority::kCompletion,
                                   [this, i] { transport_->interrupt_queue(i); });
  use(std::move(frontend_));
}

void VhostUserBlk::read_config(uint64_t offset_bytes, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
  const loop::MutexLock lock(mutex_);
  const auto bytes = std::as_bytes(std::span(&config_, 1));
  if (offset_bytes >= bytes.size()) return;
  const auto part = bytes.subspan(offset_bytes);
  std::memcpy(data.data(), part.data(), std::min(part.size(), data.size()));
}

void VhostUserBlk::write_config(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes != offsetof(virtio_blk_config, wce) || data.size() != 1) return;
  if ((features_ & bit(VIRTIO_BLK_F_CONFIG_WCE)) == 0) return;
  {
    const loop::MutexLock lock(mutex_);
    config_.wce = data.front();
  }
  home_.loop().post([this, value = data.front()] {
    wce_ = value;
    poke();
  });
}

void VhostUserBlk::start(const VirtioStart& start) {
  SKIFF_CHECK(!started_.exchange(true));
  home_.loop().post([this, start] {
    wanted_ = start;
    resumes_ = false;
    poke();
  });
}

void VhostUserBlk::stop(std::function<void()> stopped) {
  if (!started_.exchange(false)) return stopped();
  home_.loop().post([this, stopped = std::move(stopped)]() mutable {
    stopped_ = std::move(stopped);
    poke();
  });
}

void VhostUserBlk::close(std::function<void()> closed) {
  home_.assert_here();
  closed_ = std::move(closed);
  reconnect_timer_.cancel();
  poke();
}

void VhostUserBlk::poke() {
  home_.assert_here();
  if (working_) return;
  working_ = true;
  // While a worker speaks to the back end nobody else listens.
  if (connection_watcher_) connection_watcher_->watch(0);
  tasks_.spawn(work());
}

Task<void> VhostUserBlk::work() {
  bool more = true;
  while (more) more = co_await step();
  working_ = false;
  if (closed_) co_return finish_close();
  if (connection_watcher_) connection_watcher_->watch(POLLIN);
}

void VhostUserBlk::finish_close() {
  connection_watcher_.reset();
  news_watcher_.reset();
  for (const auto& queue : queues_) queue->call_watch.reset();
  frontend_.reset();
  // In a later turn: the task that calls this ends first.
  home_.loop().post(std::exchange(closed_, nullptr));
}

// One thing of those that there are to do, the most urgent first; false when there are none.
Task<bool> VhostUserBlk::step() {
  if (std::exchange(is_lost_, false)) {
    lose("it closed the connection");
  } else if (stopped_) {
    co_await end();
  } else if (closed_) {
    co_return false;
  } else if (frontend_ == nullptr) {
    if (!std::exchange(connect_due_, false)) co_return false;
    co_await connect();
  } else if (wanted_ && !is_running_) {
    co_await begin();
  } else if (wce_) {
    co_await write_wce();
  } else if (std::exchange(has_news_, false)) {
    co_await refresh_config();
  } else {
    co_return false;
  }
  co_return true;
}

void VhostUserBlk::use(std::unique_ptr<VhostUserFrontend> frontend) {
  frontend_ = std::move(frontend);
  connection_watcher_.emplace(home_.loop(), frontend_->connection_fd(), loop::Priority::kDevice,
                              [this](uint32_t) {
                                connection_watcher_->watch(0);
                                is_lost_ = true;
                                poke();
                              });
  if (!working_) connection_watcher_->watch(POLLIN);
  if (frontend_->news_fd() < 0) return;
  news_watcher_.emplace(home_.loop(), frontend_->news_fd(), loop::Priority::kDevice,
                        [this](uint32_t) {
                          news_watcher_->watch(0);
                          has_news_ = true;
                          poke();
                        });
  news_watcher_->watch(POLLIN);
}

void VhostUserBlk::lose(const std::string& why) {
  if (frontend_ == nullptr) return;
  SKIFF_LOG(kWarn, "{}: The vhost-user back end {} is gone ({}); requests wait until it is back",
            options_.name, options_.socket, why);
  connection_watcher_.reset();
  news_watcher_.reset();
  frontend_.reset();
  if (is_running_) resumes_ = true;
  is_running_ = has_news_ = false;
  reconnect_timer_.arm_after(options_.reconnect_ns);
}

Task<void> VhostUserBlk::connect() {
  auto connected = Result<std::unique_ptr<VhostUserFrontend>>(nullptr);
  std::function<void()> work = [&] {
    connected =
        VhostUserFrontend::connect({.socket = options_.socket, .timeout_ns = options_.timeout_ns});
  };
  co_await OnWorker(*options_.pool, home_.loop(), std::move(work));
  if (!connected) {
    if (!closed_) reconnect_timer_.arm_after(options_.reconnect_ns);
    co_return;
  }
  const uint64_t needed = kNeededFeatures | features_;
  const bool is_another = ((*connected)->features() & needed) != needed ||
                          (*connected)->queue_count_max() < queues_.size();
  if (is_another) {
    SKIFF_LOG_LIMITED(kWarn, "{}: The back end that listens on {} now can do less than the last",
                      options_.name, options_.socket);
    reconnect_timer_.arm_after(options_.reconnect_ns);
    co_return;
  }
  SKIFF_LOG(kWarn, "{}: The vhost-user back end {} is back", options_.name, options_.socket);
  use(*std::move(connected));
  has_news_ = true;  // The disk may have another size.
  if ((features_ & bit(VIRTIO_BLK_F_CONFIG_WCE)) == 0) co_return;
  // A new back end begins with write-back, whatever the driver has asked the last one for.
  const loop::MutexLock lock(mutex_);
  wce_ = config_.wce;
}

// The driver's queues, with this back end.
Task<void> VhostUserBlk::begin() {
  Result<void> begun;
  std::function<void()> work = [&] { begun = start_queues(); };
  co_await OnWorker(*options_.pool, home_.loop(), std::move(work));
  is_running_ = true;
  if (!begun) {
    lose(begun.error().message());
    co_return;
  }
  if (!resumes_) co_return;
  // What the one before had read or shown, and not told of: once too often is harmless.
  for (QueueIndex i = 0; i < queue_count(); ++i) {
    if (wanted_->queues[i].size == 0) continue;
    queues_[i]->kick.notify();
    transport_->interrupt_queue(i);
  }
}

Result<void> VhostUserBlk::start_queues() {
  // A log of its own for each time that the driver begins anew.
  if (!resumes_) inflight_.reset();
  if (!resumes_ && frontend_->can_keep_inflight()) {
    auto inflight = frontend_->create_inflight(queue_count(), options_.queue_size);
    if (!inflight) return inflight.error();
    inflight_ = *std::move(inflight);
  }
  std::vector<VhostUserFrontend::Queue> queues;
  for (QueueIndex i = 0; i < queue_count(); ++i) {
    VhostUserFrontend::Queue queue{.layout = wanted_->queues[i],
                                   .kick_fd = queues_[i]->kick.fd(),
                                   .call_fd = queues_[i]->call.fd()};
    // Without a log it goes on behind what is answered.
    if (resumes_ && queue.layout.size != 0)
      queue.next_available =
          memory_.load<uint16_t>(queue.layout.used + kRingIndexOffset).value_or(0);
    queues.push_back(queue);
  }
  return frontend_->start({.features = wanted_->features,
                           .memory = options_.memory,
                           .queues = queues,
                           .inflight = inflight_ ? &*inflight_ : nullptr});
}

Task<void> VhostUserBlk::end() {
  if (is_running_ && frontend_ != nullptr) {
    Result<void> ended;
    std::function<void()> work = [&] {
      const auto bases = frontend_->stop();
      if (!bases) ended = bases.error();
    };
    co_await OnWorker(*options_.pool, home_.loop(), std::move(work));
    is_running_ = false;
    // One that does not answer is sent away, so that it unmaps the guest's memory.
    if (!ended) lose(ended.error().message());
  }
  wanted_.reset();
  resumes_ = false;
  std::exchange(stopped_, nullptr)();
}

Task<void> VhostUserBlk::write_wce() {
  const uint8_t value = *std::exchange(wce_, std::nullopt);
  Result<void> written;
  std::function<void()> work = [&] {
    written = frontend_->write_config(offsetof(virtio_blk_config, wce), {&value, 1});
  };
  co_await OnWorker(*options_.pool, home_.loop(), std::move(work));
  if (!written) lose(written.error().message());
}

Task<void> VhostUserBlk::refresh_config() {
  // Nothing of this is urgent: a back end that sends news all the time makes one round at a time.
  const bool changed = frontend_->take_config_change();
  auto config = Result<virtio_blk_config>(virtio_blk_config{});
  std::function<void()> work = [&] { config = fetch_config(); };
  co_await OnWorker(*options_.pool, home_.loop(), std::move(work));
  if (!config) co_return lose(config.error().message());
  bool is_new = changed;
  {
    const loop::MutexLock lock(mutex_);
    is_new |= config_.capacity != config->capacity;
    const uint8_t wce = config_.wce;
    config_ = *config;
    config_.wce = wce;
    config_.num_queues = queue_count();
  }
  if (frontend_->news_fd() < 0)
    news_watcher_.reset();
  else if (news_watcher_)
    news_watcher_->watch(POLLIN);
  if (is_new) transport_->interrupt_config();
}

Result<virtio_blk_config> VhostUserBlk::fetch_config() {
  virtio_blk_config config = {};
  SKIFF_RETURN_IF_ERROR(
      frontend_->read_config(0, {reinterpret_cast<uint8_t*>(&config), kConfigBytes}));
  // A request's header and status take two descriptors more, and no chain is longer than a queue.
  config.seg_max = std::min<uint32_t>(config.seg_max, options_.queue_size - 2u);
  return config;
}

}  // namespace skiff::devices
