// SPDX-License-Identifier: GPL-2.0-or-later
// VhostUserBlk: a guest's virtio block device whose queues another process serves (vhost-user-blk).
//
// The guest's RAM is shared with that process, which takes kicks (KVM's ioeventfd) and requests by
// itself; here are only configuration, start and stop, and the way of interrupts. When the process
// dies, the guest's requests wait; one that listens on the socket again goes on with them: all of
// them where it keeps an inflight log, else those that are not answered, in the order of the ring.
//
// What blocks is done on the pool, one thing after the other. Thread: as VirtioDevice; the rest on
// the main loop. Ownership: borrows loops, pool, memory and transport. Stopped and closed before it
// goes.
#pragma once

#include <linux/virtio_blk.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/frontend.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/home.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "loop/worker_pool.h"

namespace skiff::devices {

class VhostUserBlk final : public VirtioDevice {
 public:
  struct Options {
    loop::EventLoop* main_loop = nullptr;
    loop::WorkerPool* pool = nullptr;
    std::string socket;
    std::string name = "vhost-user-blk";  // For messages: which disk.
    uint16_t queues = 1;                  // Wished for; at most as many as the back end has.
    uint16_t queue_size = 256;            // A power of two up to 1024.
    std::vector<SharedRegion> memory;
    int64_t timeout_ns = 5'000'000'000;    // Of each answer.
    int64_t reconnect_ns = 1'000'000'000;  // Between attempts.
  };

  // Blocks until it knows the disk. Errors as VhostUserFrontend::connect(), and kUnsupported when
  // the back end lacks what Skiff's transports always offer.
  static loop::Result<std::unique_ptr<VhostUserBlk>> create(Options options);
  ~VhostUserBlk() override;

  VirtioId id() const override { return VirtioId::kBlock; }
  std::string_view name() const override { return options_.name; }
  uint64_t features() const override { return features_; }
  uint16_t queue_count() const override { return static_cast<uint16_t>(queues_.size()); }
  uint16_t queue_size_max(QueueIndex) const override { return options_.queue_size; }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return queues_[queue]->kick;
  }
  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override;
  void write_config(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  void attach(VirtioTransport& transport) override;
  void start(const VirtioStart& start) override;
  void stop(std::function<void()> stopped) override;

  bool is_connected() const { return frontend_ != nullptr; }
  // `closed` runs when nothing is under way and nothing will be. The device is stopped.
  void close(std::function<void()> closed);

 private:
  struct Queue {
    Queue(loop::EventNotifier its_kick, loop::EventNotifier its_call)
        : kick(std::move(its_kick)), call(std::move(its_call)) {}
    loop::EventNotifier kick;
    loop::EventNotifier call;
    std::optional<loop::NotifierWatch> call_watch;
  };

  VhostUserBlk(Options options, std::unique_ptr<VhostUserFrontend> frontend);
  loop::Result<void> examine();
  loop::Result<void> make_queues();
  // Begins to do what there is to do, unless that is under way.
  void poke();
  loop::Task<void> work();
  loop::Task<bool> step();
  loop::Task<void> connect();
  loop::Task<void> begin();
  loop::Task<void> end();
  loop::Task<void> write_wce();
  loop::Task<void> refresh_config();
  loop::Result<void> start_queues();
  loop::Result<virtio_blk_config> fetch_config();
  void use(std::unique_ptr<VhostUserFrontend> frontend);
  void lose(const std::string& why);
  void finish_close();

  const Options options_;
  const loop::Home home_;
  const GuestMemory memory_;
  uint64_t features_ = 0;
  std::vector<std::unique_ptr<Queue>> queues_;
  VirtioTransport* transport_ = nullptr;
  std::atomic<bool> started_{false};

  mutable loop::Mutex mutex_;
  virtio_blk_config config_ SKIFF_GUARDED_BY(mutex_) = {};

  // Main loop; a worker's, while it does something for us.
  std::unique_ptr<VhostUserFrontend> frontend_;
  std::optional<loop::FdWatcher> connection_watcher_;
  std::optional<loop::FdWatcher> news_watcher_;
  std::optional<VirtioStart> wanted_;  // By the driver; nothing: it has none running.
  std::optional<VhostUserFrontend::InflightFile> inflight_;
  bool resumes_ = false;     // The driver's queues were begun before, by a back end that is gone.
  bool is_running_ = false;  // With the present back end.
  bool is_lost_ = false;
  bool has_news_ = false;
  bool connect_due_ = false;
  std::optional<uint8_t> wce_;  // To be written.
  std::function<void()> stopped_;
  std::function<void()> closed_;
  bool working_ = false;
  loop::Timer reconnect_timer_;
  loop::TaskScope tasks_;
};

}  // namespace skiff::devices
