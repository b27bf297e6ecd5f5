// SPDX-License-Identifier: GPL-2.0-or-later
// FakeDiskHost: the machine's part in plugging disks: makes disks on fakes or files, and lets vCPUs
// be visited when the test says so.
//
// Thread: the test's. Ownership: borrows loop and memory; owns the disks.
#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/open_image.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"
#include "vmm/disk_hotplug.h"

namespace skiff::vmm {

// A disk whose requests end when the test says so; any other path is a file.
inline constexpr const char* kFakePath = "fake";

class FakeDiskHost final : public DiskHotplug::Host {
 public:
  struct Disk {
    DiskConfig config;
    std::unique_ptr<block::BlockBackend> image;
    std::unique_ptr<devices::VirtioBlk> device;
    std::unique_ptr<block::DrainPoint> drain;
    bool is_retired = false;
    bool is_detached = false;
  };

  FakeDiskHost(loop::EventLoop& loop, devices::FakeGuestMemory& memory)
      : loop_(loop), memory_(memory), workers_(*loop::WorkerPool::create({})) {}

  loop::Result<std::unique_ptr<block::BlockBackend>> open(const DiskConfig& config);
  loop::Result<devices::VirtioDevice*> make_disk(
      const DiskConfig& config, std::unique_ptr<block::BlockBackend> image) override;
  loop::Result<devices::VirtioDevice*> find_disk(std::string_view which) override {
    for (const Disk& disk : disks)
      if (!disk.is_retired && (disk.device->name() == which || disk.config.serial == which ||
                               disk.config.path == which))
        return static_cast<devices::VirtioDevice*>(disk.device.get());
    return loop::Error(loop::ErrorKind::kNotFound, "No such disk");
  }
  void retire_disk(devices::VirtioDevice& disk) override { find(disk).is_retired = true; }
  loop::Task<void> detach_disk(devices::VirtioDevice& disk) override {
    Disk& detached = find(disk);
    loop::OneShot<bool> left(loop_);
    detached.drain->leave(detached.device->drain_party(0), [&left] { left.set(true); });
    co_await left;
    detached.is_detached = true;
  }
  void destroy_disk(devices::VirtioDevice& disk) override {
    std::erase_if(disks, [&](const Disk& other) { return other.device.get() == &disk; });
  }
  void visit_vcpus() override {
    ++visits_asked;
    if (visits_vcpus) loop_.post([this] { hotplug->note_vcpus_outside(); });
  }

  Disk& find(const devices::VirtioDevice& device) {
    return *std::ranges::find_if(disks,
                                 [&](const Disk& disk) { return disk.device.get() == &device; });
  }
  block::FakeBackend& fake_image() {
    return static_cast<block::FakeBackend&>(*disks.front().image);
  }

  DiskHotplug* hotplug = nullptr;
  bool visits_vcpus = true;
  int visits_asked = 0;
  std::list<Disk> disks;

 private:
  loop::EventLoop& loop_;
  devices::FakeGuestMemory& memory_;
  std::unique_ptr<loop::WorkerPool> workers_;
  int made_ = 0;
};

inline loop::Result<std::unique_ptr<block::BlockBackend>> FakeDiskHost::open(
    const DiskConfig& config) {
  if (config.path == kFakePath)
    return std::unique_ptr<block::BlockBackend>(
        std::make_unique<block::FakeBackend>(block::FakeBackend::Options{}));
  return block::open_image(
      {.path = config.path, .format = block::ImageFormat::kRaw, .engine = config.engine},
      *workers_);
}

inline loop::Result<devices::VirtioDevice*> FakeDiskHost::make_disk(
    const DiskConfig& config, std::unique_ptr<block::BlockBackend> image) {
  Disk disk{.config = config, .image = std::move(image)};
  auto device = devices::VirtioBlk::create({.queues = {{&loop_}},
                                            .memory = &memory_.memory(),
                                            .image = disk.image.get(),
                                            .name = "disk" + std::to_string(made_),
                                            .serial = config.serial});
  if (!device) return device.error();
  ++made_;
  disk.device = *std::move(device);
  disk.drain = std::make_unique<block::DrainPoint>(loop_, std::string(disk.device->name()));
  disk.drain->join(disk.device->drain_party(0), loop_, "queue 0");
  disks.push_back(std::move(disk));
  return static_cast<devices::VirtioDevice*>(disks.back().device.get());
}

}  // namespace skiff::vmm
