// SPDX-License-Identifier: GPL-2.0-or-later
// UsedPublisher: shows the driver what the queues of a device have finished on one loop, together
// and at most once per turn, so that queues that share an interrupt vector share the interrupt.
//
// Thread: the loop's. Ownership: shared by the queue runners that live on that loop, because they
// come and go one by one; borrows loop and transport.
#pragma once

#include <vector>

#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"

namespace skiff::devices {

class QueueRunner;

class UsedPublisher {
 public:
  UsedPublisher(loop::EventLoop& home, VirtioTransport& transport);

  loop::EventLoop& home() const { return home_; }
  VirtioTransport& transport() const { return transport_; }

  // The runner publishes here from now on, respectively no more.
  void join();
  void leave(QueueRunner& runner);
  // In the next turn, in class kCompletion. Not twice for the same runner.
  void schedule(QueueRunner& runner);

 private:
  void run();

  loop::EventLoop& home_;
  VirtioTransport& transport_;
  size_t members_ = 0;
  std::vector<QueueRunner*> due_;
  // Both only while run() is on the stack, and kept so that a turn allocates nothing.
  std::vector<QueueRunner*> running_;
  std::vector<QueueIndex> interrupts_;
  loop::BottomHalf run_bh_;
};

}  // namespace skiff::devices
