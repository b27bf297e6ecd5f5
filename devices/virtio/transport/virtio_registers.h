// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioRegisters: what the two transports have in common behind their different register layouts:
// device status, features, the queues' set-up, and the start and stop of the device (virtio 1.2,
// 2.1, 2.2, 3.1).
//
//            DRIVER_OK                start() returned
//   kIdle -------------> kStarting ---------------------> kRunning
//     ^                      | (reset asked for meanwhile)   | status 0, or machine reset
//     |      stopped         v                               v
//     +--------------------- kStopping <---------------------+
//
// While it is kStopping every write is ignored and the status reads as it was; it reads 0 once the
// device has stopped. A driver that breaks the order of things gets this:
//   - Bits of the status cannot be cleared, except all of them by writing 0 (2.1.1).
//   - FEATURES_OK does not stick without VERSION_1 or with a bit that was not offered (2.2.2).
//   - DRIVER_OK without FEATURES_OK is refused and DEVICE_NEEDS_RESET set.
//   - Features after FEATURES_OK, and queue set-up after DRIVER_OK, are ignored.
//   - A queue size that is zero, no power of two or too large is ignored; the old one stays.
// With RING_RESET a queue of a running device may be reset on its own (2.6.1), and then be set up
// and enabled like before DRIVER_OK; one that is being reset ignores all writes.
// Thread: all functions from any thread; vCPU threads, several at once, in practice. One mutex,
//         held across no call to the device or the transport.
// Ownership: part of a transport; borrows it and the device. A reset() has ended before it goes,
//         unless the device was never started.
#pragma once

#include <array>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::devices {

// Device status bits (virtio 1.2, 2.1).
inline constexpr uint8_t kVirtioAcknowledge = 1;
inline constexpr uint8_t kVirtioDriver = 2;
inline constexpr uint8_t kVirtioDriverOk = 4;
inline constexpr uint8_t kVirtioFeaturesOk = 8;
inline constexpr uint8_t kVirtioNeedsReset = 64;
inline constexpr uint8_t kVirtioFailed = 128;

class VirtioRegisters {
 public:
  // What only the transport can do. Called with no lock held.
  class Transport {
   public:
    virtual ~Transport() = default;
    // The device starts next, respectively stops next. On the thread that wrote the status.
    virtual void on_start(const VirtioStart& start) = 0;
    virtual void on_stop() = 0;
    // The device has stopped: what the transport keeps of a driver's session goes back to its reset
    // value. Any thread.
    virtual void on_stopped() = 0;
    // The same of one queue of a running device.
    virtual void on_queue_start(QueueIndex queue) = 0;
    virtual void on_queue_stop(QueueIndex queue) = 0;
    virtual void on_queue_stopped(QueueIndex queue) = 0;
    // Any thread.
    virtual void send_config_interrupt() = 0;
  };

  enum class QueueArea : uint8_t { kDescriptors, kAvailable, kUsed };

  VirtioRegisters(VirtioDevice& device, Transport& transport);

  // What is offered: the device's features and those of the transport (2.2).
  void select_device_features(uint32_t word) { device_feature_word_ = word; }
  uint32_t device_feature_word() const { return device_feature_word_; }
  uint32_t device_features() const;  // Words past the second read as zero.
  void select_driver_features(uint32_t word) { driver_feature_word_ = word; }
  uint32_t driver_feature_word() const { return driver_feature_word_; }
  uint32_t driver_features() const;
  void write_driver_features(uint32_t bits);

  uint8_t status() const;
  // May start the device, or begin to stop it; never waits for it.
  void write_status(uint8_t value);
  uint8_t config_generation() const { return generation_.load(std::memory_order_acquire); }

  // The queue that the following functions mean. One that does not exist has size 0, and writes to
  // it do nothing.
  void select_queue(uint16_t queue) { queue_select_ = queue; }
  uint16_t selected_queue() const { return queue_select_; }
  uint16_t queue_size_max() const;
  uint16_t queue_size() const;
  void write_queue_size(uint32_t size);
  bool is_queue_enabled() const;
  void write_queue_enable(bool enable);
  // 2.6.1.1. True until the queue has been reset.
  bool is_queue_resetting() const;
  void reset_queue();
  uint64_t queue_address(QueueArea area) const;
  // The bits of `mask` are replaced: half a register, or all of it.
  void write_queue_address(QueueArea area, uint64_t value, uint64_t mask);

  // Whether a kick that came as a register write is passed on to the device. Takes no lock.
  bool is_running() const { return is_running_.load(std::memory_order_acquire); }

  // For VirtioTransport, any thread.
  void config_changed();  // A new generation (2.5), and an interrupt.
  void need_reset();      // 2.1.2; does nothing unless the device runs.

  // Resets as a write of 0 to the status does. `done` runs when all is reset: inside the call when
  // the device was not started, else on an arbitrary thread.
  void request_reset(std::function<void()> done);

  // co_await registers.reset(main_loop): the same, resuming on that loop, which is the caller's.
  // Once begun it is not cancelled.
  class ResetAwaiter {
   public:
    ResetAwaiter(VirtioRegisters& registers, loop::EventLoop& loop)
        : registers_(registers), loop_(loop) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> waiter);
    void await_resume() const noexcept {}

   private:
    enum class State : uint8_t { kCalling, kSuspended, kDone };
    VirtioRegisters& registers_;
    loop::EventLoop& loop_;
    std::atomic<State> state_{State::kCalling};
  };
  ResetAwaiter reset(loop::EventLoop& loop) { return {*this, loop}; }

 private:
  enum class Phase : uint8_t { kIdle, kStarting, kRunning, kStopping };
  struct Queue {
    uint16_t size = 0;
    bool is_enabled = false;
    bool is_resetting = false;
    bool was_reset = false;               // While the device runs: may be set up.
    std::array<uint64_t, 3> addresses{};  // By QueueArea.
  };

  bool accepts_driver_features() const SKIFF_REQUIRES(mutex_);
  const Queue* selected() const SKIFF_REQUIRES(mutex_);
  // The queue while it may be set up: not when the device runs with it. Null if there is none.
  Queue* queue_for_setup(QueueIndex index) SKIFF_REQUIRES(mutex_);
  static QueueLayout layout_of(const Queue& queue);
  VirtioStart make_start() const SKIFF_REQUIRES(mutex_);
  void set_phase(Phase phase) SKIFF_REQUIRES(mutex_);
  void finish_queue_reset(QueueIndex queue);
  std::optional<VirtioStart> take_status(uint8_t value) SKIFF_REQUIRES(mutex_);
  void clear() SKIFF_REQUIRES(mutex_);
  void start(const VirtioStart& start);
  void stop();
  void finish_stop();

  VirtioDevice& device_;
  Transport& transport_;
  const uint64_t offered_features_;
  const uint16_t queue_count_;

  // Selectors are the driver's own business to serialise.
  std::atomic<uint32_t> device_feature_word_{0};
  std::atomic<uint32_t> driver_feature_word_{0};
  std::atomic<uint16_t> queue_select_{0};
  std::atomic<uint8_t> generation_{0};
  std::atomic<bool> is_running_{false};

  mutable loop::Mutex mutex_;
  Phase phase_ SKIFF_GUARDED_BY(mutex_) = Phase::kIdle;
  uint8_t status_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint64_t driver_features_ SKIFF_GUARDED_BY(mutex_) = 0;
  bool has_unknown_features_ SKIFF_GUARDED_BY(mutex_) = false;  // Of a word past the second.
  std::vector<Queue> queues_ SKIFF_GUARDED_BY(mutex_);
  bool is_reset_wanted_ SKIFF_GUARDED_BY(mutex_) = false;  // Came while kStarting.
  std::vector<std::function<void()>> waiters_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
