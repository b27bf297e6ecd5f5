// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_registers.h"

#include <atomic>
#include <bit>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"

namespace skiff::devices {
namespace {

// What both ring layouts in use need; VirtQueue implements the other two (virtio 1.2, 6).
constexpr uint64_t kTransportFeatures =
    kVirtioVersion1 | kVirtioRingIndirectDesc | kVirtioRingEventIdx;

// A driver sets these; DEVICE_NEEDS_RESET is the device's (2.1).
constexpr uint8_t kDriverBits =
    kVirtioAcknowledge | kVirtioDriver | kVirtioDriverOk | kVirtioFeaturesOk | kVirtioFailed;

}  // namespace

VirtioRegisters::VirtioRegisters(VirtioDevice& device, Transport& transport)
    : device_(device),
      transport_(transport),
      offered_features_(device.features() | kTransportFeatures),
      queue_count_(device.queue_count()) {
  const loop::MutexLock lock(mutex_);
  queues_.resize(queue_count_);
  clear();
}

uint32_t VirtioRegisters::device_features() const {
  const uint32_t word = device_feature_word_;
  return word < 2 ? static_cast<uint32_t>(offered_features_ >> (32 * word)) : 0;
}

uint32_t VirtioRegisters::driver_features() const {
  const uint32_t word = driver_feature_word_;
  const loop::MutexLock lock(mutex_);
  return word < 2 ? static_cast<uint32_t>(driver_features_ >> (32 * word)) : 0;
}

void VirtioRegisters::write_driver_features(uint32_t bits) {
  const uint32_t word = driver_feature_word_;
  const loop::MutexLock lock(mutex_);
  if ((status_ & kVirtioFeaturesOk) != 0) return;  // 2.2.1: settled.
  if (word >= 2) {
    has_unknown_features_ |= bits != 0;
    return;
  }
  const uint32_t shift = 32 * word;
  driver_features_ &= ~(uint64_t{0xffff'ffff} << shift);
  driver_features_ |= uint64_t{bits} << shift;
}

bool VirtioRegisters::accepts_driver_features() const {
  return !has_unknown_features_ && (driver_features_ & ~offered_features_) == 0 &&
         (driver_features_ & kVirtioVersion1) != 0;
}

uint8_t VirtioRegisters::status() const {
  const loop::MutexLock lock(mutex_);
  return status_;
}

void VirtioRegisters::set_phase(Phase phase) {
  phase_ = phase;
  is_running_.store(phase == Phase::kStarting || phase == Phase::kRunning,
                    std::memory_order_release);
}

void VirtioRegisters::write_status(uint8_t value) {
  if (value == 0) return request_reset({});  // 2.1: writing 0 resets the device.
  std::optional<VirtioStart> to_start;
  {
    const loop::MutexLock lock(mutex_);
    to_start = take_status(value);
  }
  if (to_start) start(*to_start);
}

// The bits that are newly set, in the order a driver sets them (3.1.1). Says what to start with
// when the device is to start.
std::optional<VirtioStart> VirtioRegisters::take_status(uint8_t value) {
  if (phase_ == Phase::kStopping) return std::nullopt;
  const uint8_t added = value & kDriverBits & static_cast<uint8_t>(~status_);
  status_ |= added & (kVirtioAcknowledge | kVirtioDriver | kVirtioFailed);
  if ((added & kVirtioFeaturesOk) != 0) {
    if (accepts_driver_features()) {
      status_ |= kVirtioFeaturesOk;
    } else {
      SKIFF_LOG_LIMITED(kWarn, "{}: Features {:#x} refused, offered were {:#x}", device_.name(),
                        driver_features_, offered_features_);
    }
  }
  if ((added & kVirtioDriverOk) == 0 || phase_ != Phase::kIdle) return std::nullopt;
  if ((status_ & kVirtioFeaturesOk) == 0 || (status_ & kVirtioNeedsReset) != 0) {
    SKIFF_LOG_LIMITED(kWarn, "{}: DRIVER_OK refused at status {:#x}", device_.name(), status_);
    status_ |= kVirtioNeedsReset;
    return std::nullopt;
  }
  status_ |= kVirtioDriverOk;
  set_phase(Phase::kStarting);
  return make_start();
}

VirtioStart VirtioRegisters::make_start() const {
  VirtioStart start{.features = driver_features_, .queues = {}};
  for (const Queue& queue : queues_)
    start.queues.push_back(queue.is_enabled ? layout_of(queue) : QueueLayout{});
  return start;
}

QueueLayout VirtioRegisters::layout_of(const Queue& queue) {
  return {.size = queue.size,
          .descriptors = {queue.addresses[0]},
          .available = {queue.addresses[1]},
          .used = {queue.addresses[2]}};
}

void VirtioRegisters::start(const VirtioStart& start) {
  transport_.on_start(start);
  device_.start(start);
  bool must_stop = false;
  {
    const loop::MutexLock lock(mutex_);
    must_stop = std::exchange(is_reset_wanted_, false);
    set_phase(must_stop ? Phase::kStopping : Phase::kRunning);
  }
  if (must_stop) stop();
}

void VirtioRegisters::stop() {
  transport_.on_stop();
  device_.stop([this] { finish_stop(); });
}

void VirtioRegisters::finish_stop() {
  transport_.on_stopped();
  std::vector<std::function<void()>> waiters;
  {
    const loop::MutexLock lock(mutex_);
    clear();
    set_phase(Phase::kIdle);
    waiters.swap(waiters_);
  }
  // The last of them may be what our owner waits for to destroy us: nothing of ours from here on.
  for (const auto& done : waiters) done();
}

void VirtioRegisters::request_reset(std::function<void()> done) {
  bool must_stop = false;
  bool is_idle = false;
  {
    const loop::MutexLock lock(mutex_);
    must_stop = phase_ == Phase::kRunning;
    is_idle = phase_ == Phase::kIdle;
    if (phase_ == Phase::kStarting) is_reset_wanted_ = true;  // start() sees to it.
    if (must_stop) set_phase(Phase::kStopping);
    if (is_idle) {
      clear();
    } else if (done) {
      waiters_.push_back(std::exchange(done, nullptr));
    }
  }
  if (must_stop) return stop();
  if (!is_idle) return;
  transport_.on_stopped();
  if (done) done();
}

bool VirtioRegisters::ResetAwaiter::await_suspend(std::coroutine_handle<> waiter) {
  registers_.request_reset([this, waiter] {
    loop::EventLoop& loop = loop_;
    if (state_.exchange(State::kDone) == State::kSuspended)
      loop.post([waiter] { waiter.resume(); });
  });
  // Once this says kSuspended, the coroutine may be running again, and this awaiter gone.
  return state_.exchange(State::kSuspended) != State::kDone;
}

// The values after reset; the phase is the caller's.
void VirtioRegisters::clear() {
  status_ = 0;
  driver_features_ = 0;
  has_unknown_features_ = false;
  device_feature_word_ = 0;
  driver_feature_word_ = 0;
  queue_select_ = 0;
  for (uint16_t i = 0; i < queue_count_; ++i) {
    queues_[i] = Queue{};
    queues_[i].size = device_.queue_size_max(i);  // 4.1.4.3: what the device supports.
  }
}

const VirtioRegisters::Queue* VirtioRegisters::selected() const {
  const uint16_t index = queue_select_;
  return index < queue_count_ ? &queues_[index] : nullptr;
}

VirtioRegisters::Queue* VirtioRegisters::queue_for_setup(QueueIndex index) {
  if (index >= queue_count_) return nullptr;
  Queue& queue = queues_[index];
  const bool may = phase_ == Phase::kIdle || (phase_ == Phase::kRunning && queue.was_reset);
  return may ? &queue : nullptr;
}

uint16_t VirtioRegisters::queue_size_max() const {
  const uint16_t index = queue_select_;
  return index < queue_count_ ? device_.queue_size_max(index) : uint16_t{0};
}

uint16_t VirtioRegisters::queue_size() const {
  const loop::MutexLock lock(mutex_);
  const Queue* queue = selected();
  return queue == nullptr ? uint16_t{0} : queue->size;
}

void VirtioRegisters::write_queue_size(uint32_t size) {
  const uint16_t size_max = queue_size_max();
  const loop::MutexLock lock(mutex_);
  Queue* queue = queue_for_setup(queue_select_);
  // 2.7: a split ring's size is a power of two.
  if (queue != nullptr && std::has_single_bit(size) && size <= size_max)
    queue->size = static_cast<uint16_t>(size);
}

bool VirtioRegisters::is_queue_enabled() const {
  const loop::MutexLock lock(mutex_);
  const Queue* queue = selected();
  return queue != nullptr && queue->is_enabled;
}

void VirtioRegisters::write_queue_enable(bool enable) {
  const QueueIndex index = queue_select_;
  QueueLayout layout;
  {
    const loop::MutexLock lock(mutex_);
    Queue* queue = queue_for_setup(index);
    if (queue == nullptr || (!enable && queue->was_reset)) return;
    queue->is_enabled = enable;
    if (!std::exchange(queue->was_reset, false)) return;
    layout = layout_of(*queue);
  }
  // 2.6.1.2: back at work, with whatever set-up the driver has given it.
  transport_.on_queue_start(index);
  device_.start_queue(index, layout);
}

bool VirtioRegisters::is_queue_resetting() const {
  const loop::MutexLock lock(mutex_);
  const Queue* queue = selected();
  return queue != nullptr && queue->is_resetting;
}

void VirtioRegisters::reset_queue() {
  const QueueIndex index = queue_select_;
  {
    const loop::MutexLock lock(mutex_);
    const bool agreed = (driver_features_ & kVirtioRingReset) != 0;
    if (index >= queue_count_ || !agreed || phase_ != Phase::kRunning) return;
    Queue& queue = queues_[index];
    if (queue.is_resetting || queue.was_reset) return;
    queue.is_resetting = true;
  }
  transport_.on_queue_stop(index);
  device_.reset_queue(index, [this, index] { finish_queue_reset(index); });
}

void VirtioRegisters::finish_queue_reset(QueueIndex index) {
  transport_.on_queue_stopped(index);
  const uint16_t size_max = device_.queue_size_max(index);
  const loop::MutexLock lock(mutex_);
  if (phase_ == Phase::kIdle) return;  // Reset as a whole meanwhile.
  // 2.6.1.1.1, 4.1.4.3.1: the defaults, neither enabled nor being reset.
  queues_[index] = Queue{.size = size_max, .was_reset = true};
}

uint64_t VirtioRegisters::queue_address(QueueArea area) const {
  const loop::MutexLock lock(mutex_);
  const Queue* queue = selected();
  return queue == nullptr ? 0 : queue->addresses[static_cast<size_t>(area)];
}

void VirtioRegisters::write_queue_address(QueueArea area, uint64_t value, uint64_t mask) {
  const loop::MutexLock lock(mutex_);
  Queue* queue = queue_for_setup(queue_select_);
  if (queue == nullptr) return;
  uint64_t& address = queue->addresses[static_cast<size_t>(area)];
  address = (address & ~mask) | (value & mask);
}

void VirtioRegisters::config_changed() {
  generation_.fetch_add(1, std::memory_order_acq_rel);
  transport_.send_config_interrupt();
}

void VirtioRegisters::need_reset() {
  {
    const loop::MutexLock lock(mutex_);
    const bool runs = phase_ == Phase::kStarting || phase_ == Phase::kRunning;
    if (!runs || (status_ & kVirtioNeedsReset) != 0) return;
    status_ |= kVirtioNeedsReset;
  }
  transport_.send_config_interrupt();  // 2.1.2: DRIVER_OK is set.
}

}  // namespace skiff::devices
