// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/machine_disks.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/filters/fault_rules.h"
#include "block/open_image.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/task.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/disk_image.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_status.h"
#include "vmm/disk_threads.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;

}  // namespace

MachineDisks::MachineDisks(const MachineConfig& config, Surroundings surroundings)
    : surroundings_(std::move(surroundings)),
      threads_(config, surroundings_.apic_ids, surroundings_.main_loop) {}

MachineDisks::~MachineDisks() {
  for (const Disk& disk : disks_) threads_.forget(*disk.device);
}

Result<devices::VirtioDevice*> MachineDisks::make_disk(const DiskConfig& config) {
  if (!config.vhost_user.empty())
    return Error(ErrorKind::kUnsupported,
                 "disk: vhost-user= cannot be added to a machine that runs; give it to skiff run");
  auto workers = threads_.workers();
  if (!workers) return workers.error();
  auto image = block::open_image(image_options(config), **workers);
  if (!image) return image.error().with_context("disk");
  Disk& disk = disks_.emplace_back();
  disk.name = fmt::format("disk{}", next_number_);
  disk.config = config;
  disk.image = *std::move(image);
  auto device = threads_.make_device(
      config,
      {.memory = &surroundings_.memory,
       .image = disk.image.get(),
       .name = disk.name,
       .serial = config.serial,
       .errors = config.errors,
       .stopped = [this, &disk](const devices::BlkStop& stop) { on_disk_stop(disk, stop); }});
  if (!device) {
    disks_.pop_back();
    return device.error().with_context("disk", config.path);
  }
  ++next_number_;
  disk.device = *std::move(device);
  disk.drain = std::make_unique<block::DrainPoint>(surroundings_.main_loop, disk.name);
  for (uint16_t queue = 0; queue < disk.device->queue_count(); ++queue)
    disk.drain->join(disk.device->drain_party(queue), surroundings_.main_loop,
                     fmt::format("{} queue {}", disk.name, queue));
  return static_cast<devices::VirtioDevice*>(disk.device.get());
}

// On the home of one of the disk's queues.
void MachineDisks::on_disk_stop(const Disk& disk, const devices::BlkStop& stop) {
  std::string reason =
      loop::Error::from_errno(
          stop.os_error,
          fmt::format("{} ({}): {} of {} bytes at {}", disk.name, disk.image->name(),
                      block::block_op_name(stop.op), stop.length_bytes, stop.offset_bytes))
          .message();
  SKIFF_LOG_LIMITED(kWarn, "The machine pauses until it is resumed: {}", reason);
  surroundings_.main_loop.post([this, reason = std::move(reason)] {
    if (surroundings_.disk_stopped) surroundings_.disk_stopped(reason);
  });
}

Result<MachineDisks::Disk*> MachineDisks::find(std::string_view which) {
  Disk* found = nullptr;
  std::string names;
  for (Disk& disk : disks_) {
    if (disk.is_retired) {
      if (disk.name == which)
        return Error(ErrorKind::kBusy, fmt::format("{} is being removed", which));
      continue;
    }
    if (disk.name == which) return &disk;
    names.append(names.empty() ? "" : ", ").append(disk.name);
    if (which.empty() || (disk.config.serial != which && disk.config.path != which)) continue;
    if (found != nullptr)
      return Error(
          ErrorKind::kInvalidArgument,
          fmt::format("{} means {} and {}: say which by its name", which, found->name, disk.name));
    found = &disk;
  }
  if (found != nullptr) return found;
  return Error(ErrorKind::kNotFound, names.empty()
                                         ? fmt::format("No disk {}: the machine has none", which)
                                         : fmt::format("No disk {} (there are {})", which, names));
}

Result<devices::VirtioDevice*> MachineDisks::find_disk(std::string_view which) {
  auto found = find(which);
  if (!found) return found.error();
  return static_cast<devices::VirtioDevice*>((*found)->device.get());
}

MachineDisks::Disk& MachineDisks::owner_of(const devices::VirtioDevice& device) {
  const auto owner = std::ranges::find_if(
      disks_, [&device](const Disk& disk) { return disk.device.get() == &device; });
  SKIFF_CHECK(owner != disks_.end());
  return *owner;
}

void MachineDisks::retire_disk(devices::VirtioDevice& disk) {
  Disk& retired = owner_of(disk);
  retired.is_retired = true;
  threads_.forget(*retired.device);
}

Task<void> MachineDisks::detach_disk(devices::VirtioDevice& disk) {
  return leave_drain(owner_of(disk));
}

void MachineDisks::destroy_disk(devices::VirtioDevice& disk) {
  // One that never got a slot was not retired.
  threads_.forget(*owner_of(disk).device);
  std::erase_if(disks_, [&disk](const Disk& other) { return other.device.get() == &disk; });
}

Result<void> MachineDisks::set_faults(std::string_view which, block::FaultRules rules) {
  auto found = find(which);
  if (!found) return found.error();
  return (*found)->image->set_faults(std::move(rules));
}

void MachineDisks::resize(std::string_view which, std::optional<uint64_t> size_bytes,
                          std::function<void(const Result<void>&)> done) {
  auto found = find(which);
  if (!found) {
    return surroundings_.main_loop.post(
        [done = std::move(done), error = found.error()] { done(error); });
  }
  Disk& resized = **found;
  // Without requests in flight none can meet an end of the image that it was not checked against.
  const auto drain_id = std::make_shared<block::DrainPoint::DrainId>(0);  // Known after begin().
  *drain_id = resized.drain->begin([&resized, drain_id, size_bytes, done = std::move(done)] {
    const Result<void> result = resized.image->resize(size_bytes);
    if (result) resized.device->capacity_changed();
    resized.drain->end(*drain_id);
    done(result);
  });
}

// A drain that is on ends at the latest in the turn before this does: nobody else is waited for.
Task<void> MachineDisks::leave_drain(Disk& disk) {
  for (uint16_t queue = 0; queue < disk.device->queue_count(); ++queue) {
    loop::OneShot<bool> left(surroundings_.main_loop);
    disk.drain->leave(disk.device->drain_party(queue), [&left] { left.set(true); });
    co_await left;
  }
}

Task<void> MachineDisks::leave_drains() {
  for (Disk& disk : disks_) co_await leave_drain(disk);
}

Result<void> MachineDisks::set_submit(std::string_view which, DiskSubmit submit) {
  auto found = find(which);
  if (!found) return found.error();
  return threads_.set_submit(*(*found)->device, submit);
}

void MachineDisks::retry_failed_requests() {
  for (const Disk& disk : disks_)
    if (!disk.is_retired) disk.device->retry_failed();
}

std::vector<DiskStatus> MachineDisks::status() const {
  std::vector<DiskStatus> all;
  for (const Disk& disk : disks_)
    all.push_back({.name = disk.name,
                   .path = disk.config.path,
                   .serial = disk.config.serial,
                   .size_bytes = disk.image->size_bytes(),
                   .is_read_only = disk.image->is_read_only(),
                   .pci = {},
                   .activity = threads_.activity(*disk.device)});
  return all;
}

}  // namespace skiff::vmm
