// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioDevice and VirtioTransport: the two halves of a virtio device (virtio 1.2, chapters 2 and
// 4).
//
// The transport (PCI or MMIO) has the registers and runs on vCPU threads; the device has the queues
// and runs on its home loops. They meet only in these two interfaces. Thread: stated at each
// function. Ownership: the machine owns both; each borrows the other between attach and the end.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/core/msi.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/task.h"

namespace skiff::devices {

using QueueIndex = uint16_t;

// Virtio device types (virtio 1.2, 5).
enum class VirtioId : uint16_t { kNet = 1, kBlock = 2, kConsole = 3, kEntropy = 4 };

// Feature bits that are the same for every device (virtio 1.2, 6).
inline constexpr uint64_t kVirtioRingIndirectDesc = uint64_t{1} << 28;
inline constexpr uint64_t kVirtioRingEventIdx = uint64_t{1} << 29;
inline constexpr uint64_t kVirtioVersion1 = uint64_t{1} << 32;
// Offered by devices whose queues can be reset one by one (2.6.1).
inline constexpr uint64_t kVirtioRingReset = uint64_t{1} << 40;

class InflightLog;  // devices/virtio/inflight_log.h

// Where somebody who served the queue before us has left off. The used index is the ring's own.
struct QueueResume {
  uint16_t next_available =
      0;  // The next entry of the available ring; with a log, it knows better.
  InflightLog* inflight = nullptr;  // Stays until the queue is stopped; null: nobody keeps one.
};

// Where the driver put a queue.
struct QueueLayout {
  uint16_t size = 0;  // 0: the driver does not use this queue.
  GuestAddress descriptors;
  GuestAddress available;                  // Driver area.
  GuestAddress used;                       // Device area.
  std::optional<QueueResume> resume = {};  // Nothing: the queue begins, all indices are zero.
  // Rung instead of the device's own doorbell(); stays until the queue is stopped. Null: that one.
  const loop::EventNotifier* doorbell = nullptr;
};

// How a guest's kick of a queue reaches the device.
enum class DoorbellPath : uint8_t {
  kKernel,  // KVM signals VirtioDevice::doorbell() (ioeventfd).
  kExit,    // The register write ends KVM_RUN, and its vCPU's thread calls VirtioDevice::kick().
};

// What a device may do to its transport. Thread: any.
class VirtioTransport {
 public:
  virtual ~VirtioTransport() = default;
  // The used ring of this queue has news; whether the driver wants to know was decided by the
  // queue.
  virtual void interrupt_queue(QueueIndex queue) = 0;
  // The same of several queues at once: one interrupt for those that share a vector.
  virtual void interrupt_queues(std::span<const QueueIndex> queues) {
    for (const QueueIndex queue : queues) interrupt_queue(queue);
  }
  virtual void interrupt_config() = 0;
  // The driver broke the rules: DEVICE_NEEDS_RESET is set and a configuration interrupt sent
  // (virtio 1.2, 2.1.2).
  virtual void need_reset() = 0;
  // From now on, over resets, and while the device runs too: a system call, so not for a request's
  // path. A kick may still come the old way for a moment: the device looks at the ring afterwards.
  virtual void set_doorbell_path(QueueIndex queue, DoorbellPath path) = 0;
};

// What the driver agreed to when it set DRIVER_OK.
struct VirtioStart {
  uint64_t features = 0;
  std::vector<QueueLayout> queues;  // One per queue of the device.
};

class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;

  // Constant facts. Thread: any.
  virtual VirtioId id() const = 0;
  virtual std::string_view name() const = 0;
  virtual uint64_t features() const = 0;  // Beyond the ring features, which the transport adds.
  virtual uint16_t queue_count() const = 0;
  virtual uint16_t queue_size_max(QueueIndex queue) const = 0;
  // Signalled by the guest's kick, or by the transport when KVM did not take the doorbell.
  virtual const loop::EventNotifier& doorbell(QueueIndex queue) const = 0;
  // A kick that came as a register write. Thread: vCPU threads, several at once.
  virtual void kick(QueueIndex queue) { doorbell(queue).notify(); }
  // The MSI-X message that the queue's interrupts use from now on; nothing: none, or masked.
  // Thread: vCPU threads; where the machine is reset, the main loop.
  virtual void interrupt_target_changed(QueueIndex /*queue*/,
                                        std::optional<MsiMessage> /*message*/) {}
  // The loop that the calling thread has to turn while it waits for a stop, because a queue has its
  // home there; null: none.
  virtual loop::EventLoop* home_of_this_thread() const { return nullptr; }

  // Device-specific configuration. Thread: vCPU threads, several at once. Bytes outside it read as
  // zero.
  virtual void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const = 0;
  virtual void write_config(uint64_t offset_bytes, std::span<const uint8_t> data) = 0;

  // The transport, once, before anything else. Thread: main loop.
  virtual void attach(VirtioTransport& transport) = 0;

  // Between start() and the end of stop() the device serves its queues. Thread: any (the vCPU
  // thread that wrote the status); the device moves to its home loops by itself. A layout that
  // cannot be used ends in need_reset().
  virtual void start(const VirtioStart& start) = 0;
  // Stops all queues. `stopped` runs on an arbitrary thread when nothing of the device touches
  // guest memory any more; at once, inside the call, when it was not started. Never two stops at
  // the same time.
  virtual void stop(std::function<void()> stopped) = 0;

  // Of a device that offers kVirtioRingReset, while it is started. The queue is as before the start
  // (2.6.1.1) when `done` runs, on an arbitrary thread, and in any case before the end of a stop().
  virtual void reset_queue(QueueIndex /*queue*/, std::function<void()> done) { done(); }
  // A queue that was reset is used again, with the features of the start (2.6.1.2).
  virtual void start_queue(QueueIndex /*queue*/, const QueueLayout& /*layout*/) {}
};

}  // namespace skiff::devices
