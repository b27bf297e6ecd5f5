// SPDX-License-Identifier: GPL-2.0-or-later
// The device in this process: image, IOThreads and VirtioBlk, and what stands for its transport.
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/open_image.h"
#include "devices/core/guest_memory.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/queues_target.h"

namespace skiff::vmm {
namespace {

using devices::QueueIndex;
using devices::SubmitMode;
using loop::Result;

class DeviceTarget final : public QueueTarget, private devices::VirtioTransport {
 public:
  explicit DeviceTarget(SubmitMode mode) : mode_(mode) {}
  // A pool goes before the loops that it serves.
  ~DeviceTarget() override {
    device_.reset();
    image_.reset();
    pool_.reset();
  }

  Result<void> open(const QueuesBenchOptions& options, const QueuesContestant& contestant,
                    const devices::GuestMemory& memory,
                    std::span<loop::EventLoop* const> vcpu_loops) {
    auto pool = loop::WorkerPool::create({.name = "bench-pool"});
    if (!pool) return pool.error();
    pool_ = *std::move(pool);
    auto image =
        block::open_image({.path = options.path,
                           .format = block::ImageFormat::kRaw,
                           .access = writes(options.pattern) ? block::WriteAccess::kReadWrite
                                                             : block::WriteAccess::kReadOnly,
                           .direct = options.direct ? block::DirectIo::kOn : block::DirectIo::kOff,
                           .engine = contestant.engine},
                          *pool_);
    if (!image) return image.error();
    image_ = *std::move(image);

    std::vector<loop::EventLoop*> loops(vcpu_loops.begin(), vcpu_loops.end());
    if (mode_ != SubmitMode::kVcpu) SKIFF_RETURN_IF_ERROR(start_iothreads(options, loops));
    devices::VirtioBlk::Options device_options;
    for (uint32_t queue = 0; queue < options.queues; ++queue)
      device_options.queues.push_back({loops[queue % loops.size()], mode_});
    device_options.memory = &memory;
    device_options.image = image_.get();
    device_options.name = "bench";
    device_options.queue_size = options.queue_size;
    auto device = devices::VirtioBlk::create(device_options);
    if (!device) return device.error();
    device_ = *std::move(device);
    device_->attach(*this);
    return {};
  }

  uint64_t capacity_sectors() const override { return image_->size_bytes() / kBlkSectorBytes; }
  uint64_t features() const override {
    // What a transport adds.
    return device_->features() | devices::kVirtioVersion1 | devices::kVirtioRingEventIdx |
           devices::kVirtioRingIndirectDesc;
  }
  uint16_t queue_count() const override { return device_->queue_count(); }
  pid_t pid() const override { return ::getpid(); }

  Result<void> start(const Start& start) override {
    devices::VirtioStart layouts;
    layouts.features = start.features;
    for (const TargetQueue& queue : start.queues) {
      devices::QueueLayout layout;
      layout.size = start.queue_size;
      layout.descriptors = {queue.places.descriptors};
      layout.available = {queue.places.available};
      layout.used = {queue.places.used};
      layouts.queues.push_back(layout);
      call_fds_.push_back(queue.call_fd);
    }
    device_->start(layouts);
    return {};
  }
  // As a guest's kick arrives: by KVM's eventfd, or as an exit on the vCPU's thread.
  void kick(uint16_t queue) override {
    if (mode_ == SubmitMode::kVcpu)
      device_->kick(queue);
    else
      device_->doorbell(queue).notify();
  }
  void stop() override {
    std::atomic<bool> stopped = false;
    device_->stop([&stopped] {
      stopped.store(true, std::memory_order_release);
      stopped.notify_one();
    });
    stopped.wait(false, std::memory_order_acquire);
  }

 private:
  Result<void> start_iothreads(const QueuesBenchOptions& options,
                               std::vector<loop::EventLoop*>& loops) {
    loops.clear();
    for (uint32_t i = 0; i < options.iothreads; ++i) {
      auto thread = loop::IoThread::create({.name = "io" + std::to_string(i)});
      if (!thread) return thread.error();
      iothreads_.push_back(*std::move(thread));
      loops.push_back(&iothreads_.back()->loop());
    }
    return {};
  }

  // VirtioTransport, on the queues' homes.
  void interrupt_queue(QueueIndex queue) override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(call_fds_[queue], &one, sizeof(one));
  }
  void interrupt_config() override {}
  void need_reset() override {}
  void set_doorbell_path(QueueIndex, devices::DoorbellPath) override {}

  const SubmitMode mode_;
  std::vector<std::unique_ptr<loop::IoThread>> iothreads_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<block::BlockBackend> image_;
  std::unique_ptr<devices::VirtioBlk> device_;
  std::vector<int> call_fds_;
};

}  // namespace

Result<std::unique_ptr<QueueTarget>> open_device_target(const QueuesBenchOptions& options,
                                                        const QueuesContestant& contestant,
                                                        const devices::GuestMemory& memory,
                                                        std::span<loop::EventLoop* const> loops) {
  auto target = std::make_unique<DeviceTarget>(contestant.submit);
  SKIFF_RETURN_IF_ERROR(target->open(options, contestant, memory, loops));
  return std::unique_ptr<QueueTarget>(std::move(target));
}

}  // namespace skiff::vmm
