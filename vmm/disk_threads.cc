// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/disk_threads.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/msi.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/latency_histogram.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_activity.h"
#include "vmm/disk_times.h"
#include "vmm/placement/host_topology.h"
#include "vmm/placement/iothread_plan.h"
#include "vmm/placement/queue_placer.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;

// Those that this process serves.
std::vector<DiskConfig> own_disks(const MachineConfig& config) {
  std::vector<DiskConfig> own;
  for (const DiskConfig& disk : config.disks)
    if (disk.vhost_user.empty()) own.push_back(disk);
  return own;
}

bool may_have_disks(const MachineConfig& config) {
  // Disks may be plugged in later by whoever has the control socket.
  return !own_disks(config).empty() || !config.control.empty();
}

bool vcpus_may_submit(const MachineConfig& config) {
  return !config.control.empty() ||
         std::ranges::any_of(own_disks(config), [](const DiskConfig& disk) {
           return disk.submit == DiskSubmit::kAuto || disk.submit == DiskSubmit::kVcpu;
         });
}

}  // namespace

// As the placer sees it; it stays in place until it is forgotten.
struct DiskThreads::Disk final : PlacedDisk {
  explicit Disk(DiskConfig its_config) : config(std::move(its_config)) {}
  const std::string& name() const override { return its_name; }
  uint16_t queue_count() const override { return device->queue_count(); }
  QueuePulse pulse(devices::QueueIndex queue) const override {
    const devices::BlkQueueStats stats = device->queue_stats(queue);
    QueuePulse pulse{.requests = stats.requests,
                     .batches = stats.batches,
                     .kicks = stats.kicks,
                     .foreign_kicks = stats.foreign_kicks,
                     .last_foreign = stats.foreign_kicker};
    for (const loop::LatencyHistogram& latency : stats.latency)
      pulse.busy_ns += latency.mean_ns() * static_cast<double>(latency.count());
    return pulse;
  }
  void move_queue(devices::QueueIndex queue, const devices::QueueHome& home,
                  std::function<void()> moved) override {
    device->move_queue(queue, home, std::move(moved));
  }
  devices::QueueHome home(devices::QueueIndex queue) const override {
    return device->queue_home(queue);
  }
  void tell_next_request() override { device->tell_next_request(); }

  DiskConfig config;
  size_t number = 0;  // Of those before it.
  std::string its_name;
  devices::VirtioBlk* device = nullptr;
};

DiskThreads::DiskThreads(const MachineConfig& config, std::vector<uint32_t> apic_ids,
                         loop::EventLoop& main_loop)
    : main_loop_(main_loop),
      workers_config_(config.workers),
      boot_disks_(own_disks(config)),
      iothreads_config_(config.iothreads),
      cpus_config_(config.cpus),
      wants_vcpu_loops_(vcpus_may_submit(config)),
      topology_(may_have_disks(config) ? HostTopology::read() : HostTopology({HostCpu{}})),
      usable_(find_usable_cpus()),
      load_(usable_.cpus),
      placer_({.main_loop = main_loop,
               .topology = topology_,
               .apic_ids = std::move(apic_ids),
               .usable_cores = static_cast<double>(usable_.cores(topology_)),
               .idle_cores = [this] { return load_.idle_cpus(); }}) {}

DiskThreads::~DiskThreads() {
  for (const auto& disk : disks_) placer_.remove(*disk);
}

Result<loop::WorkerPool*> DiskThreads::workers() {
  if (!workers_) {
    auto workers = loop::WorkerPool::create({.min_workers = workers_config_.min,
                                             .max_workers = workers_config_.max,
                                             .cpus = workers_config_.cpus,
                                             .sched = workers_config_.sched});
    if (!workers) return workers.error().with_context("workers");
    workers_ = *std::move(workers);
  }
  return workers_.get();
}

Result<void> DiskThreads::ensure_iothreads(const DiskConfig& config) {
  if (!plans_.empty()) return {};
  if (!boot_disks_.empty()) SKIFF_RETURN_IF_ERROR(start_iothreads(std::exchange(boot_disks_, {})));
  // The first disk that needs one may come while the machine runs.
  if (plans_.empty()) SKIFF_RETURN_IF_ERROR(start_iothreads({&config, 1}));
  return {};
}

Result<void> DiskThreads::start_iothreads(std::span<const DiskConfig> disks) {
  auto plans = plan_iothreads(disks, iothreads_config_,
                              {topology_, usable_, cpus_config_.count, cpus_config_.pin});
  // All or none: queues are placed by the plan.
  std::vector<std::unique_ptr<loop::IoThread>> threads;
  for (const PlannedIothread& plan : plans) {
    loop::EventLoop::Options options;
    if (plan.polls_always) options.poll_max_ns = int64_t{plan.poll_max_us} * 1000;
    auto thread = loop::IoThread::create(
        {.name = plan.name, .cpus = plan.cpus, .sched = plan.sched, .loop = options});
    if (!thread) return thread.error().with_context("iothread", plan.name);
    SKIFF_LOG(kDebug, "IOThread {}: {}", plan.name, plan.why);
    threads.push_back(*std::move(thread));
  }
  for (size_t i = 0; i < plans.size(); ++i) {
    placer_.add_iothread({.name = plans[i].name,
                          .loop = &threads[i]->loop(),
                          .poll_max_ns = int64_t{plans[i].poll_max_us} * 1000,
                          .polls_always = plans[i].polls_always});
  }
  iothreads_ = std::move(threads);
  plans_ = std::move(plans);
  return {};
}

DiskPlacement DiskThreads::placement_of(const DiskConfig& config, size_t number,
                                        uint16_t queues) const {
  DiskPlacement placement{.submit = config.submit, .steer = config.steer};
  placement.threads = plan_queue_map(config, number, queues, plans_);
  // Who said which thread serves which queue wants it there.
  if (config.map.kind == QueueMap::Kind::kAuto)
    placement.allowed_threads = plan_allowed_threads(config, plans_);
  return placement;
}

Result<std::unique_ptr<devices::VirtioBlk>> DiskThreads::make_device(
    const DiskConfig& config, devices::VirtioBlk::Options options) {
  SKIFF_RETURN_IF_ERROR(check_submit(config));
  SKIFF_RETURN_IF_ERROR(ensure_iothreads(config));
  const uint16_t queues = plan_queue_count(config, cpus_config_.count);
  DiskPlacement placement = placement_of(config, disks_so_far_, queues);
  auto disk = std::make_unique<Disk>(config);
  disk->its_name = options.name;
  options.queues = placer_.first_homes(placement, queues);
  options.queue_size = config.queue_size;
  options.discard = config.discard;
  options.interrupt_target_changed = [this, placed = disk.get()](
                                         devices::QueueIndex queue,
                                         std::optional<devices::MsiMessage> message) {
    placer_.interrupt_target_changed(*placed, queue, message);
  };
  options.active = [this] { placer_.wake(); };
  auto device = devices::VirtioBlk::create(options);
  if (!device) return device.error();
  disk->device = device->get();
  disk->number = disks_so_far_++;
  placer_.add(*disk, std::move(placement));
  disks_.push_back(std::move(disk));
  return device;
}

void DiskThreads::forget(const devices::VirtioBlk& device) {
  disks_.remove_if([this, &device](const auto& disk) {
    if (disk->device != &device) return false;
    placer_.remove(*disk);
    return true;
  });
}

const DiskThreads::Disk* DiskThreads::find(const devices::VirtioBlk& device) const {
  const auto found =
      std::ranges::find_if(disks_, [&device](const auto& disk) { return disk->device == &device; });
  return found == disks_.end() ? nullptr : found->get();
}

DiskActivity DiskThreads::activity(const devices::VirtioBlk& device) const {
  const Disk* disk = find(device);
  if (disk == nullptr) return {};
  DiskActivity activity{.submit = disk_submit_name(disk->config.submit)};
  DiskTimes times;
  for (uint16_t queue = 0; queue < device.queue_count(); ++queue) {
    const devices::BlkQueueStats stats = device.queue_stats(queue);
    activity.queues.push_back(queue_status(stats, placer_.where(*disk, queue)));
    times.add(stats);
  }
  activity.latency = times.latency();
  activity.stages = times.stages();
  return activity;
}

Result<void> DiskThreads::check_submit(const DiskConfig& config) const {
  if (config.submit != DiskSubmit::kVcpu || vcpus_can_submit_) return {};
  return Error(ErrorKind::kUnsupported,
               fmt::format("disk {}: submit=vcpu is not possible here: vCPUs submit through rings "
                           "of their own, which need io_uring and another disk or a control socket "
                           "when the machine is made (see kernel.io_uring_disabled)",
                           config.path));
}

Result<void> DiskThreads::set_vcpus(std::vector<QueuePlacer::VcpuContext> vcpus) {
  vcpus_can_submit_ =
      std::ranges::all_of(vcpus, [](const auto& vcpu) { return vcpu.loop != nullptr; });
  for (const auto& disk : disks_) SKIFF_RETURN_IF_ERROR(check_submit(disk->config));
  placer_.set_vcpus(std::move(vcpus));
  return {};
}

Result<void> DiskThreads::set_submit(const devices::VirtioBlk& device, DiskSubmit submit) {
  const auto found =
      std::ranges::find_if(disks_, [&device](const auto& disk) { return disk->device == &device; });
  if (found == disks_.end()) return Error(ErrorKind::kNotFound, "The disk is being removed");
  Disk& disk = **found;
  DiskConfig config = disk.config;
  config.submit = submit;
  SKIFF_RETURN_IF_ERROR(check_submit(config));
  SKIFF_RETURN_IF_ERROR(ensure_iothreads(config));
  disk.config.submit = submit;
  placer_.change(disk, placement_of(config, disk.number, device.queue_count()));
  return {};
}

Task<void> DiskThreads::hold() {
  loop::OneShot<bool> settled(main_loop_);
  placer_.hold([&settled] { settled.set(true); });
  co_await settled;
}

}  // namespace skiff::vmm
