// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_mmio.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/core/bus.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

using QueueArea = VirtioRegisters::QueueArea;

// Registers (virtio 1.2, 4.2.2).
enum Register : uint16_t {
  kMagicValue = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSel = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSel = 0x024,
  kQueueSel = 0x030,
  kQueueNumMax = 0x034,
  kQueueNum = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = 0x050,
  kInterruptStatus = 0x060,
  kInterruptAck = 0x064,
  kStatus = 0x070,
  kQueueDescLow = 0x080,
  kQueueDescHigh = 0x084,
  kQueueDriverLow = 0x090,
  kQueueDriverHigh = 0x094,
  kQueueDeviceLow = 0x0a0,
  kQueueDeviceHigh = 0x0a4,
  kShmLenLow = 0x0b0,
  kShmBaseHigh = 0x0bc,
  kQueueReset = 0x0c0,
  kConfigGeneration = 0x0fc,
  kConfig = 0x100,
};

constexpr uint32_t kMagic = 0x7472'6976;   // "virt"
constexpr uint32_t kModern = 2;            // 4.2.2: not legacy.
constexpr uint32_t kVendor = 0x4649'4b53;  // "SKIF"
constexpr uint32_t kUsedBuffer = 1 << 0;   // InterruptStatus.
constexpr uint32_t kConfigChange = 1 << 1;
constexpr uint64_t kLowHalf = 0xffff'ffff;
constexpr uint64_t kHighHalf = ~kLowHalf;

}  // namespace

std::unique_ptr<VirtioMmio> VirtioMmio::create(const Options& options) {
  std::unique_ptr<VirtioMmio> transport(new VirtioMmio(options));
  options.device.attach(*transport);
  return transport;
}

VirtioMmio::VirtioMmio(const Options& options)
    : device_(options.device),
      main_loop_(options.main_loop),
      registers_(options.device, *this),
      // All queues share QueueNotify; the value is the queue.
      doorbells_(options.doorbells, options.device,
                 {.offset_bytes = kQueueNotify, .size_bytes = 4}),
      irq_(options.irq) {
  doorbells_.set_base(options.base);
}

loop::Task<void> VirtioMmio::reset() { co_await registers_.reset(main_loop_); }

void VirtioMmio::raise(uint32_t bits) {
  // Status and line change together, else an acknowledgement between the two leaves the line high
  // for nothing.
  const loop::MutexLock lock(interrupt_mutex_);
  interrupt_status_ |= bits;
  irq_.set_level(true);
}

void VirtioMmio::acknowledge(uint32_t bits) {
  const loop::MutexLock lock(interrupt_mutex_);
  interrupt_status_ &= ~bits;
  irq_.set_level(interrupt_status_ != 0);
}

void VirtioMmio::interrupt_queue(QueueIndex /*queue*/) { raise(kUsedBuffer); }

void VirtioMmio::interrupt_queues(std::span<const QueueIndex> /*queues*/) { raise(kUsedBuffer); }

void VirtioMmio::interrupt_config() { registers_.config_changed(); }

void VirtioMmio::need_reset() { registers_.need_reset(); }

void VirtioMmio::set_doorbell_path(QueueIndex queue, DoorbellPath path) {
  doorbells_.set_path(queue, path);
}

void VirtioMmio::send_config_interrupt() { raise(kConfigChange); }

void VirtioMmio::on_start(const VirtioStart& start) { doorbells_.start(start); }

void VirtioMmio::on_stop() { doorbells_.stop(); }

void VirtioMmio::on_stopped() { acknowledge(~uint32_t{0}); }

void VirtioMmio::on_queue_start(QueueIndex queue) { doorbells_.start_queue(queue); }

void VirtioMmio::on_queue_stop(QueueIndex queue) { doorbells_.stop_queue(queue); }

void VirtioMmio::on_queue_stopped(QueueIndex /*queue*/) {}

void VirtioMmio::kick(uint32_t queue) {
  if (queue < device_.queue_count() && registers_.is_running())
    device_.kick(static_cast<QueueIndex>(queue));
}

void VirtioMmio::write_status(uint32_t value) {
  if (value == 0) return reset_and_wait_for_stop();  // 4.2.2: writing 0 resets.
  // Higher bits are reserved, and must not look like a reset when they are cut off.
  if ((value & 0xff) != 0) registers_.write_status(static_cast<uint8_t>(value));
}

// The one register handler that blocks its vCPU thread: a driver goes on as soon as the write
// returns, without reading the status back (4.2.3.1), and may reuse the queues' memory at once.
void VirtioMmio::reset_and_wait_for_stop() {
  if (loop::EventLoop* const here = device_.home_of_this_thread()) return reset_and_turn(*here);
  loop::Mutex mutex;
  loop::ConditionVariable changed;
  bool has_stopped = false;
  registers_.request_reset([&] {
    const loop::MutexLock lock(mutex);
    has_stopped = true;
    changed.notify_one();  // Under the lock: the waiter's frame goes when it sees this.
  });
  const loop::MutexLock lock(mutex);
  while (!has_stopped) changed.wait(mutex);
}

// The same on a vCPU's thread whose loop is the home of a queue, and has to turn for it to stop. We
// are between its turns.
void VirtioMmio::reset_and_turn(loop::EventLoop& here) {
  // Lives on in the callback, which may still be posting when we have seen the flag.
  const auto has_stopped = std::make_shared<std::atomic<bool>>(false);
  registers_.request_reset([has_stopped, &here] {
    has_stopped->store(true);
    here.post([] {});  // Ends its sleep.
  });
  while (!has_stopped->load()) here.run_once(loop::EventLoop::Wait::kUntilEvent);
}

void VirtioMmio::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  if (offset_bytes >= kConfig) {
    std::ranges::fill(data, uint8_t{0});
    return device_.read_config(offset_bytes - kConfig, data);
  }
  std::ranges::fill(data, uint8_t{0xff});
  if (data.size() == 4 && offset_bytes % 4 == 0) store_le(data, read_register(offset_bytes));
}

void VirtioMmio::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes >= kConfig) return device_.write_config(offset_bytes - kConfig, data);
  if (data.size() == 4 && offset_bytes % 4 == 0)
    write_register(offset_bytes, static_cast<uint32_t>(load_le(data)));
}

uint32_t VirtioMmio::read_register(uint64_t offset_bytes) const {
  switch (offset_bytes) {
    case kMagicValue:
      return kMagic;
    case kVersion:
      return kModern;
    case kDeviceId:
      return static_cast<uint32_t>(device_.id());
    case kVendorId:
      return kVendor;
    case kDeviceFeatures:
      return registers_.device_features();
    case kInterruptStatus: {
      const loop::MutexLock lock(interrupt_mutex_);
      return interrupt_status_;
    }
    case kStatus:
      return registers_.status();
    case kConfigGeneration:
      return registers_.config_generation();
    default:
      return read_queue_register(offset_bytes);
  }
}

uint32_t VirtioMmio::read_queue_register(uint64_t offset_bytes) const {
  switch (offset_bytes) {
    case kQueueNumMax:
      return registers_.queue_size_max();
    case kQueueReady:
      return registers_.is_queue_enabled() ? 1 : 0;
    case kQueueReset:
      return registers_.is_queue_resetting() ? 1 : 0;
    default:
      break;
  }
  // 4.2.2: a shared memory region that is not there has a length of -1; there are none.
  if (offset_bytes >= kShmLenLow && offset_bytes <= kShmBaseHigh) return ~uint32_t{0};
  return 0;  // Reserved, or write-only.
}

void VirtioMmio::write_register(uint64_t offset_bytes, uint32_t value) {
  switch (offset_bytes) {
    case kDeviceFeaturesSel:
      return registers_.select_device_features(value);
    case kDriverFeatures:
      return registers_.write_driver_features(value);
    case kDriverFeaturesSel:
      return registers_.select_driver_features(value);
    case kQueueNotify:
      return kick(value);
    case kInterruptAck:
      return acknowledge(value);
    case kStatus:
      return write_status(value);
    default:
      return write_queue_register(offset_bytes, value);
  }
}

void VirtioMmio::write_queue_register(uint64_t offset_bytes, uint32_t value) {
  const auto write_address = [this, value](QueueArea area, uint64_t half) {
    registers_.write_queue_address(area, value | uint64_t{value} << 32, half);
  };
  switch (offset_bytes) {
    case kQueueSel:
      // A number that is too large must not become a queue by being cut off.
      return registers_.select_queue(static_cast<uint16_t>(std::min(value, uint32_t{0xffff})));
    case kQueueNum:
      return registers_.write_queue_size(value);
    case kQueueReady:
      return registers_.write_queue_enable((value & 1) != 0);
    case kQueueReset:
      if (value == 1) registers_.reset_queue();
      return;
    case kQueueDescLow:
      return write_address(QueueArea::kDescriptors, kLowHalf);
    case kQueueDescHigh:
      return write_address(QueueArea::kDescriptors, kHighHalf);
    case kQueueDriverLow:
      return write_address(QueueArea::kAvailable, kLowHalf);
    case kQueueDriverHigh:
      return write_address(QueueArea::kAvailable, kHighHalf);
    case kQueueDeviceLow:
      return write_address(QueueArea::kUsed, kLowHalf);
    case kQueueDeviceHigh:
      return write_address(QueueArea::kUsed, kHighHalf);
    default:
      return;
  }
}

}  // namespace skiff::devices
