// SPDX-License-Identifier: GPL-2.0-or-later
// DiskOpener: opens the images of disks that come while the machine runs. A server that does not
// answer, or a file system that hangs, keeps a thread of its own waiting, and nobody else.
//
// Thread: main loop. Ownership: owns the threads that wait; borrows main loop and pools. Idle
// (wait_until_idle()) when it is destroyed.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <stop_token>
#include <string>

#include "block/block_channel.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"

namespace skiff::vmm {

class DiskOpener {
 public:
  using Image = loop::Result<std::unique_ptr<block::BlockBackend>>;
  using Opened = std::function<void(Image)>;
  static constexpr size_t kOpeningsMax = 8;

  explicit DiskOpener(loop::EventLoop& main_loop);
  ~DiskOpener();
  DiskOpener(const DiskOpener&) = delete;
  DiskOpener& operator=(const DiskOpener&) = delete;

  // `opened` runs in a later turn. Errors as open_image(); kBusy when a disk with this serial
  // number is being opened, or kOpeningsMax disks are; kCancelled after give_up(). The image's
  // blocking work will be done by `pool`.
  void open(const DiskConfig& config, loop::WorkerPool& pool, Opened opened);
  // Ends the waiting for servers, now and for good.
  void give_up();
  // Ends when every `opened` has run. `waiting_for` says for which disk.
  loop::Task<void> wait_until_idle(std::string& waiting_for);

 private:
  struct Opening;
  loop::Result<void> check(const DiskConfig& config) const;
  void finish(Opening& opening);

  const loop::Home home_;
  std::stop_source stop_;
  std::unique_ptr<loop::WorkerPool> waiters_;  // Made when the first disk comes.
  std::list<std::unique_ptr<Opening>> openings_;
  loop::OneShot<bool>* one_ended_ = nullptr;  // Somebody waits for the next to end.
};

}  // namespace skiff::vmm
