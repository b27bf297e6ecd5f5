// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/storage/storage_server.h"

#include <spdlog/fmt/fmt.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/drain.h"
#include "block/open_image.h"
#include "devices/vhost_user/backend.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/awaitables.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/disk_image.h"
#include "vmm/placement/iothread_plan.h"
#include "vmm/storage/storage_options.h"

namespace skiff::vmm {
namespace {

using loop::ErrorKind;
using loop::Result;
using loop::Task;

// A front end takes as many as it has use for; the others cost some memory.
constexpr uint16_t kQueuesDefault = 16;
// Of a request: it must fit the queues that front ends have unless they are told otherwise, 128
// long in QEMU, and no message tells how long they are.
constexpr uint32_t kSegmentsMax = 126;

uint16_t queue_count(const DiskConfig& disk) {
  return disk.queues != 0 ? static_cast<uint16_t>(disk.queues) : kQueuesDefault;
}

// A predecessor that was killed keeps its lock until its last request has ended in the kernel.
Result<std::unique_ptr<block::BlockBackend>> open_when_free(const DiskConfig& disk,
                                                            loop::WorkerPool& workers) {
  constexpr int kAttempts = 100;
  for (int attempt = 1;; ++attempt) {
    auto image = block::open_image(image_options(disk), workers);
    if (image || image.error().kind() != ErrorKind::kBusy || attempt == kAttempts) return image;
    const timespec pause{.tv_sec = 0, .tv_nsec = 10'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

// The thread of each queue, as an index.
std::vector<size_t> threads_of(const DiskConfig& disk, const StorageOptions& options,
                               size_t thread_count) {
  const std::vector<std::string>& names =
      disk.map.kind == QueueMap::Kind::kList ? disk.map.iothreads : disk.iothreads;
  std::vector<size_t> usable;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(options.iothreads, name, &IothreadConfig::id);
    usable.push_back(static_cast<size_t>(found - options.iothreads.begin()));
  }
  for (size_t i = 0; names.empty() && i < thread_count; ++i) usable.push_back(i);
  std::vector<size_t> threads;
  for (size_t queue = 0; queue < queue_count(disk); ++queue)
    threads.push_back(usable[queue % usable.size()]);
  return threads;
}

}  // namespace

StorageServer::StorageServer(loop::EventLoop& main_loop)
    : main_loop_(main_loop), tasks_(main_loop) {}

// Backends detach from devices, devices from images.
StorageServer::~StorageServer() { exports_.clear(); }

Result<std::unique_ptr<StorageServer>> StorageServer::create(loop::EventLoop& main_loop,
                                                             const StorageOptions& options) {
  std::unique_ptr<StorageServer> server(new StorageServer(main_loop));
  SKIFF_RETURN_IF_ERROR(server->start_threads(options));
  for (const StorageExport& wanted : options.exports)
    SKIFF_RETURN_IF_ERROR(server->add(wanted, options));
  return server;
}

Result<void> StorageServer::start_threads(const StorageOptions& options) {
  auto workers = loop::WorkerPool::create({.min_workers = options.workers.min,
                                           .max_workers = options.workers.max,
                                           .cpus = options.workers.cpus,
                                           .sched = options.workers.sched});
  if (!workers) return workers.error().with_context("workers");
  workers_ = *std::move(workers);
  std::vector<IothreadConfig> wanted = options.iothreads;
  if (wanted.empty()) {
    size_t queues = 0;
    for (const StorageExport& one : options.exports) queues += queue_count(one.disk);
    const auto cpus = loop::CpuSet::of_process();
    if (!cpus) return cpus.error();
    for (size_t i = 0; i < std::min<size_t>(queues, cpus->count()); ++i)
      wanted.push_back({.id = fmt::format("io{}", i)});
  }
  const bool polls = std::ranges::any_of(options.exports, [](const StorageExport& one) {
    return one.disk.submit == DiskSubmit::kPoll;
  });
  for (const IothreadConfig& config : wanted) {
    const uint32_t poll_max_us = config.poll_max_us.value_or(polls ? kPollMaxUsDefault : 0);
    auto thread = loop::IoThread::create({.name = config.id,
                                          .cpus = config.cpus,
                                          .sched = config.sched,
                                          .loop = {.poll_max_ns = int64_t{poll_max_us} * 1000}});
    if (!thread) return thread.error().with_context("iothread", config.id);
    threads_.push_back(*std::move(thread));
  }
  return {};
}

Result<void> StorageServer::add(const StorageExport& wanted, const StorageOptions& options) {
  auto added = std::make_unique<Export>();
  auto image = open_when_free(wanted.disk, *workers_);
  if (!image) return image.error();
  added->image = *std::move(image);
  std::vector<devices::QueueHome> homes;
  std::vector<loop::EventLoop*> loops;
  const auto mode = wanted.disk.submit == DiskSubmit::kPoll ? devices::SubmitMode::kPoll
                                                            : devices::SubmitMode::kIoThread;
  for (const size_t thread : threads_of(wanted.disk, options, threads_.size())) {
    loops.push_back(&threads_[thread]->loop());
    homes.push_back({.loop = loops.back(), .mode = mode});
  }
  auto device = devices::VirtioBlk::create({.queues = homes,
                                            .memory = &added->memory.guest(),
                                            .image = added->image.get(),
                                            .name = wanted.socket,
                                            .serial = wanted.disk.serial,
                                            .queue_size = wanted.disk.queue_size,
                                            .segments_max = kSegmentsMax,
                                            .discard = wanted.disk.discard,
                                            .errors = wanted.disk.errors});
  if (!device) return device.error();
  added->device = *std::move(device);
  auto backend = devices::VhostUserBackend::create({.main_loop = &main_loop_,
                                                    .socket = wanted.socket,
                                                    .name = wanted.socket,
                                                    .device = added->device.get(),
                                                    .memory = &added->memory,
                                                    .homes = loops});
  if (!backend) return backend.error().with_context("socket");
  added->backend = *std::move(backend);
  added->drain = std::make_unique<block::DrainPoint>(main_loop_, wanted.disk.path);
  for (devices::QueueIndex queue = 0; queue < loops.size(); ++queue)
    added->drain->join(added->device->drain_party(queue), *loops[queue],
                       fmt::format("queue {}", queue));
  SKIFF_LOG(kInfo, "Serving {} on {} with {} queues", wanted.disk.path, wanted.socket,
            loops.size());
  exports_.push_back(std::move(added));
  return {};
}

void StorageServer::follow_sizes() {
  for (const auto& one : exports_) {
    Export& resized = *one;
    const auto id = std::make_shared<block::DrainPoint::DrainId>(0);  // Known after begin().
    *id = resized.drain->begin([&resized, id] {
      const Result<void> done = resized.image->resize(std::nullopt);
      if (!done) SKIFF_LOG(kWarn, "{}", done.error().message());
      if (done) resized.device->capacity_changed();
      resized.drain->end(*id);
    });
  }
}

void StorageServer::stop(std::function<void()> stopped) {
  tasks_.spawn(stop_all(std::move(stopped)));
}

Task<void> StorageServer::stop_all(std::function<void()> stopped) {
  // All at once, and then waited for.
  std::vector<std::unique_ptr<loop::OneShot<bool>>> ends;
  for (const auto& one : exports_) {
    ends.push_back(std::make_unique<loop::OneShot<bool>>(main_loop_));
    one->backend->stop([end = ends.back().get()] { end->set(true); });
  }
  for (const auto& end : ends) {
    loop::OneShot<bool>& one = *end;
    co_await one;
  }
  for (const auto& one : exports_) {
    for (devices::QueueIndex queue = 0; queue < one->device->queue_count(); ++queue) {
      loop::OneShot<bool> left(main_loop_);
      one->drain->leave(one->device->drain_party(queue), [&left] { left.set(true); });
      co_await left;
    }
  }
  // In a later turn, when this task has ended.
  main_loop_.post(std::move(stopped));
}

}  // namespace skiff::vmm
