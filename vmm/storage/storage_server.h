// SPDX-License-Identifier: GPL-2.0-or-later
// StorageServer: disks served to other processes over vhost-user, each on a socket of its own.
//
// Thread: main loop; queues run on IOThreads. Ownership: owns threads, images, devices and sockets;
// borrows the main loop. stop() has called back before it goes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "devices/vhost_user/backend.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "loop/worker_pool.h"
#include "vmm/storage/storage_options.h"

namespace skiff::vmm {

class StorageServer {
 public:
  // Everything is open and listens when it returns.
  static loop::Result<std::unique_ptr<StorageServer>> create(loop::EventLoop& main_loop,
                                                             const StorageOptions& options);
  ~StorageServer();
  StorageServer(const StorageServer&) = delete;
  StorageServer& operator=(const StorageServer&) = delete;

  // Each disk becomes as large as its file is by now, and its front end hears of it.
  void follow_sizes();
  // Sends the front ends away when what they asked for is done; `stopped` in a later turn.
  void stop(std::function<void()> stopped);

 private:
  // In the order of construction; destroyed the other way round.
  struct Export {
    std::unique_ptr<block::BlockBackend> image;
    devices::MemoryTable memory;
    std::unique_ptr<devices::VirtioBlk> device;
    std::unique_ptr<devices::VhostUserBackend> backend;
    std::unique_ptr<block::DrainPoint> drain;
  };

  explicit StorageServer(loop::EventLoop& main_loop);
  loop::Result<void> start_threads(const StorageOptions& options);
  loop::Result<void> add(const StorageExport& wanted, const StorageOptions& options);
  loop::Task<void> stop_all(std::function<void()> stopped);

  loop::EventLoop& main_loop_;
  std::vector<std::unique_ptr<loop::IoThread>> threads_;
  std::unique_ptr<loop::WorkerPool> workers_;  // Goes before the loops it serves.
  std::vector<std::unique_ptr<Export>> exports_;
  loop::TaskScope tasks_;
};

}  // namespace skiff::vmm
