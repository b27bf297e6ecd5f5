// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/vhost_rings.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::EventNotifier;
using loop::Result;
using loop::Task;
using loop::UniqueFd;

// Checked here so that the loop may rely on it; nothing when there is no descriptor.
Result<void> check_eventfd(const UniqueFd& fd) {
  if (!fd) return {};
  UniqueFd copy(::dup(fd.get()));
  auto notifier = EventNotifier::adopt_foreign(std::move(copy));
  if (notifier) return {};
  return Error(ErrorKind::kCorrupt, notifier.error().message());
}

}  // namespace

VhostRings::Ring::Ring(loop::EventLoop& its_home, loop::EventLoop& main_loop)
    : home(its_home),
      call(std::make_unique<CallLine>(its_home)),
      error(std::make_unique<CallLine>(main_loop)) {}

VhostRings::VhostRings(Options options) : options_(std::move(options)), home_(*options_.main_loop) {
  SKIFF_CHECK(options_.homes.size() == options_.device->queue_count());
  for (loop::EventLoop* home : options_.homes)
    rings_.push_back(std::make_unique<Ring>(*home, home_.loop()));
  options_.device->attach(*this);
}

VhostRings::~VhostRings() { SKIFF_CHECK(!device_started_); }

Task<Result<void>> VhostRings::set_features(uint64_t features) {
  // Also after the start, by front ends that only turn logging on and off: nothing changes then.
  if (features_ == features) co_return {};
  co_await stop_all();
  co_await stop_device();
  features_ = features;
  co_return start_all_ready();
}

Task<Result<void>> VhostRings::set_size(QueueIndex queue, uint32_t size) {
  const uint16_t size_max = options_.device->queue_size_max(queue);
  if (!std::has_single_bit(size) || size > size_max)
    co_return Error(ErrorKind::kCorrupt,
                    fmt::format("Queue {} is to have {} entries: a power of two up to {} is "
                                "possible",
                                queue, size, size_max));
  co_await stop(queue);
  rings_[queue]->size = static_cast<uint16_t>(size);
  co_return start_if_ready(queue);
}

Task<Result<void>> VhostRings::set_addresses(VhostVringAddress address) {
  const auto queue = static_cast<QueueIndex>(address.index);
  co_await stop(queue);
  rings_[queue]->address = address;
  co_return start_if_ready(queue);
}

Task<Result<void>> VhostRings::set_base(QueueIndex queue, uint32_t index) {
  if (index > UINT16_MAX)
    co_return Error(ErrorKind::kCorrupt,
                    fmt::format("Queue {} is to begin at index {}", queue, index));
  co_await stop(queue);
  rings_[queue]->base = static_cast<uint16_t>(index);
  co_return start_if_ready(queue);
}

Task<Result<void>> VhostRings::set_kick(QueueIndex queue, UniqueFd fd) {
  if (!fd)
    co_return Error(ErrorKind::kUnsupported,
                    fmt::format("Queue {} is to be polled; a kick eventfd is needed", queue));
  auto kick = EventNotifier::adopt_foreign(std::move(fd));
  if (!kick) co_return Error(ErrorKind::kCorrupt, kick.error().message());
  co_await stop(queue);
  rings_[queue]->kick.emplace(*std::move(kick));
  co_return start_if_ready(queue);
}

Result<void> VhostRings::set_call(QueueIndex queue, UniqueFd fd) {
  SKIFF_RETURN_IF_ERROR(check_eventfd(fd));
  Ring& ring = *rings_[queue];
  // Shared, because what is posted must be copyable.
  auto shared = std::make_shared<UniqueFd>(std::move(fd));
  ring.home.post([line = ring.call.get(), shared] {
    line->set(std::move(*shared));
    line->signal();  // What was signalled before may have gone to nobody.
  });
  return {};
}

Result<void> VhostRings::set_error(QueueIndex queue, UniqueFd fd) {
  SKIFF_RETURN_IF_ERROR(check_eventfd(fd));
  rings_[queue]->error->set(std::move(fd));
  return {};
}

Task<Result<void>> VhostRings::set_enabled(QueueIndex queue, bool enabled) {
  rings_[queue]->enabled = enabled;
  if (!enabled) co_await stop(queue);
  co_return start_if_ready(queue);
}

Task<uint16_t> VhostRings::take_base(QueueIndex queue) {
  co_await stop(queue);
  Ring& ring = *rings_[queue];
  ring.kick.reset();
  co_return ring.base;
}

Task<Result<void>> VhostRings::set_inflight(SharedMapping mapping, VhostInflight shape) {
  co_await stop_all();
  for (const auto& ring : rings_) ring->log.reset();
  inflight_ = std::move(mapping);
  inflight_shape_ = shape;
  co_return start_all_ready();
}

Task<Result<void>> VhostRings::change_memory(std::function<Result<void>()> change) {
  co_await stop_all();
  auto changed = change();
  // Also after a change that was refused: the table is as it was.
  auto started = start_all_ready();
  co_return changed ? std::move(started) : std::move(changed);
}

Task<void> VhostRings::disable_all() {
  for (const auto& ring : rings_) ring->enabled = false;
  co_await stop_all();
}

Task<void> VhostRings::shut_down() {
  co_await stop_all();
  co_await stop_device();
  for (const auto& ring : rings_) {
    loop::OneShot<bool> closed(home_.loop());
    ring->home.post(
        [&closed, line = ring->call.get()] { line->close([&closed] { closed.set(true); }); });
    co_await closed;
    loop::OneShot<bool> error_closed(home_.loop());
    ring->error->close([&error_closed] { error_closed.set(true); });
    co_await error_closed;
    ring->size = ring->base = 0;
    ring->address.reset();
    ring->kick.reset();
    ring->log.reset();
    ring->enabled = false;
  }
  features_.reset();
  inflight_.reset();
}

Task<void> VhostRings::stop(QueueIndex queue) {
  home_.assert_here();
  Ring& ring = *rings_[queue];
  if (!ring.running) co_return;
  loop::OneShot<bool> done(home_.loop());
  options_.device->reset_queue(queue, [&done] { done.set(true); });
  co_await done;
  ring.running = false;
  // All that was taken has been answered, so the used ring's index is that of the available ring's
  // next entry as well. It is the peer's memory, but the peer's requests too.
  const auto used = options_.memory->guest_address(ring.address->used);
  const auto index = used ? options_.memory->guest().load<uint16_t>(*used + kRingIndexOffset)
                          : std::optional<uint16_t>();
  ring.base = index.value_or(0);
}

Task<void> VhostRings::stop_all() {
  for (QueueIndex queue = 0; queue < rings_.size(); ++queue) co_await stop(queue);
}

Task<void> VhostRings::stop_device() {
  if (!device_started_) co_return;
  loop::OneShot<bool> done(home_.loop());
  options_.device->stop([&done] { done.set(true); });
  co_await done;
  device_started_ = false;
}

Result<void> VhostRings::start_all_ready() {
  for (QueueIndex queue = 0; queue < rings_.size(); ++queue)
    SKIFF_RETURN_IF_ERROR(start_if_ready(queue));
  return {};
}

Result<void> VhostRings::start_if_ready(QueueIndex queue) {
  home_.assert_here();
  Ring& ring = *rings_[queue];
  if (ring.running || !features_ || ring.size == 0 || !ring.address || !ring.kick || !ring.enabled)
    return {};
  SKIFF_RETURN_IF_ERROR(open_log(queue));
  auto layout = layout_of(ring);
  if (!layout) return layout.error().with_context(fmt::format("Queue {}", queue));
  if (!device_started_) {
    // Queues are added to it one by one.
    options_.device->start({.features = *features_ & ~kVhostProtocolFeatures,
                            .queues = std::vector<QueueLayout>(rings_.size())});
    device_started_ = true;
  }
  ring.running = true;
  options_.device->start_queue(queue, *layout);
  // Who served it before may have died between answering and telling.
  ring.home.post([line = ring.call.get()] { line->signal(); });
  return {};
}

Result<void> VhostRings::open_log(QueueIndex queue) {
  Ring& ring = *rings_[queue];
  if (!inflight_ || queue >= inflight_shape_.queue_count) return {};
  const uint64_t stride = InflightLog::bytes_for(inflight_shape_.queue_size);
  // Looked at when it came: it has room for that many queues.
  auto log = InflightLog::open(inflight_->bytes().subspan(queue * stride, stride), ring.size);
  if (!log) return log.error();
  ring.log = *std::move(log);
  return {};
}

Result<QueueLayout> VhostRings::layout_of(Ring& ring) {
  const MemoryTable& memory = *options_.memory;
  QueueLayout layout;
  layout.size = ring.size;
  struct Part {
    uint64_t user_address;
    uint64_t size_bytes;
    uint64_t alignment;
    GuestAddress& into;
  };
  const Part parts[] = {
      {ring.address->descriptors, ring.size * kVirtDescriptorBytes, 16, layout.descriptors},
      {ring.address->available, avail_ring_bytes(ring.size), 2, layout.available},
      {ring.address->used, used_ring_bytes(ring.size), 4, layout.used}};
  for (const Part& part : parts) {
    const auto address = memory.guest_address(part.user_address);
    if (!address || address->value % part.alignment != 0 ||
        !memory.guest().translate(*address, part.size_bytes))
      return Error(ErrorKind::kCorrupt,
                   fmt::format("The ring at {:#x} is misaligned or outside the shared memory",
                               part.user_address));
    part.into = *address;
  }
  layout.resume =
      QueueResume{.next_available = ring.base, .inflight = ring.log ? &*ring.log : nullptr};
  layout.doorbell = &*ring.kick;
  return layout;
}

void VhostRings::interrupt_queue(QueueIndex queue) { rings_[queue]->call->signal(); }

void VhostRings::interrupt_config() { home_.loop().post(options_.config_changed); }

void VhostRings::need_reset() {
  home_.loop().post([this] { signal_errors(); });
}

// Which queue it was, the device has logged; a front end resets all of them.
void VhostRings::signal_errors() {
  for (const auto& ring : rings_) ring->error->signal();
}

}  // namespace skiff::devices
