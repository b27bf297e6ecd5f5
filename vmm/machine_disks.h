// SPDX-License-Identifier: GPL-2.0-or-later
// MachineDisks: the machine's disks, from the image to the virtio device, and the threads that
// serve them. Buses and transports are others'.
//
// Thread: main loop. Ownership: owns threads, images and devices; borrows memory and main loop. No
// vCPU may run, and no transport be there, when it is destroyed.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/filters/fault_rules.h"
#include "devices/core/guest_memory.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_hotplug.h"
#include "vmm/disk_status.h"
#include "vmm/disk_threads.h"

namespace skiff::vmm {

class MachineDisks final : public DiskHotplug::Host {
 public:
  struct Surroundings {
    loop::EventLoop& main_loop;
    const devices::GuestMemory& memory;
    std::vector<uint32_t> apic_ids = {};  // By vCPU.
    // A disk waits for the machine to be resumed, and why.
    std::function<void(std::string)> disk_stopped = {};
    // Every vCPU comes out of the guest once; DiskHotplug hears of it.
    std::function<void()> visit_vcpus = {};
  };
  MachineDisks(const MachineConfig& config, Surroundings surroundings);
  virtual ~MachineDisks();
  MachineDisks(const MachineDisks&) = delete;
  MachineDisks& operator=(const MachineDisks&) = delete;

  // DiskHotplug::Host. A disk is named "disk" and the number of disks so far.
  loop::Result<devices::VirtioDevice*> make_disk(const DiskConfig& config) override;
  loop::Result<devices::VirtioDevice*> find_disk(std::string_view which) override;
  void retire_disk(devices::VirtioDevice& disk) override;
  loop::Task<void> detach_disk(devices::VirtioDevice& disk) override;
  void destroy_disk(devices::VirtioDevice& disk) override;
  void visit_vcpus() override { surroundings_.visit_vcpus(); }

  loop::Result<void> set_faults(std::string_view which, block::FaultRules rules);
  // Nothing: as large as its file is by now. `done` runs in a later turn.
  void resize(std::string_view which, std::optional<uint64_t> size_bytes,
              std::function<void(const loop::Result<void>&)> done);
  // Tries again what disks with rerror or werror=stop hold back.
  void retry_failed_requests();
  // Which threads submit the disk's requests from now on.
  loop::Result<void> set_submit(std::string_view which, DiskSubmit submit);
  // Which of them are vCPUs, and what holds queues where they are.
  DiskThreads& threads() { return threads_; }
  // Before the end: no drain will reach the devices any more.
  loop::Task<void> leave_drains();
  std::vector<DiskStatus> status() const;

 private:
  struct Disk {
    std::string name;
    DiskConfig config;
    std::unique_ptr<block::BlockBackend> image;
    std::unique_ptr<devices::VirtioBlk> device;
    std::unique_ptr<block::DrainPoint> drain;
    bool is_retired = false;
  };
  loop::Result<Disk*> find(std::string_view which);
  Disk& owner_of(const devices::VirtioDevice& device);
  loop::Task<void> leave_drain(Disk& disk);
  void on_disk_stop(const Disk& disk, const devices::BlkStop& stop);

  const Surroundings surroundings_;
  uint32_t next_number_ = 0;
  // In the order of construction; destroyed the other way round.
  DiskThreads threads_;
  std::list<Disk> disks_;  // Each stays in place until it is destroyed.
};

}  // namespace skiff::vmm
