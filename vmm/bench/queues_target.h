// SPDX-License-Identifier: GPL-2.0-or-later
// QueueTarget: a virtio-blk device under the load of `skiff bench queues`, wherever it is.
//
// Thread: main thread, but for kick(): any driver thread. Ownership: borrows memory, eventfds and
// loops.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/queues_options.h"

namespace skiff::devices {
class FrontendMemory;
class GuestMemory;
}  // namespace skiff::devices

namespace skiff::vmm {

struct TargetQueue {
  DriverRing::Places places;
  int call_fd = -1;  // An eventfd that takes the interrupts; several queues may share one.
};

class QueueTarget {
 public:
  struct Start {
    uint64_t features = 0;  // Agreed on.
    uint16_t queue_size = 0;
    std::span<const TargetQueue> queues;
  };

  virtual ~QueueTarget() = default;
  virtual uint64_t capacity_sectors() const = 0;
  virtual uint64_t features() const = 0;  // Offered.
  virtual uint16_t queue_count() const = 0;
  virtual loop::Result<void> start(const Start& start) = 0;
  virtual void kick(uint16_t queue) = 0;
  // Nothing is under way in the queues.
  virtual void stop() = 0;
  // The process whose threads do the work.
  virtual pid_t pid() const = 0;
};

// In this process. With SubmitMode::kVcpu queue q lives on loops[q % loops.size()], which driver
// threads turn from start() to the end of stop(); otherwise on IOThreads of its own.
loop::Result<std::unique_ptr<QueueTarget>> open_device_target(
    const QueuesBenchOptions& options, const QueuesContestant& contestant,
    const devices::GuestMemory& memory, std::span<loop::EventLoop* const> loops);

// Behind a vhost-user socket.
loop::Result<std::unique_ptr<QueueTarget>> connect_vhost_target(
    const std::string& socket, uint32_t queues, const devices::FrontendMemory& memory);

}  // namespace skiff::vmm
