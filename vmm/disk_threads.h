// SPDX-License-Identifier: GPL-2.0-or-later
// DiskThreads: the threads that serve the machine's disks, and which queue of which disk is where.
//
// Thread: main loop. Ownership: owns the threads; borrows main loop and devices, which are
// forgotten before they go. vCPUs that queues live on outlive the queues' stay there
// (leave_vcpus()).
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_activity.h"
#include "vmm/placement/host_load.h"
#include "vmm/placement/host_topology.h"
#include "vmm/placement/iothread_plan.h"
#include "vmm/placement/queue_placer.h"

namespace skiff::vmm {

class DiskThreads {
 public:
  // `apic_ids` by vCPU. Threads are made when the first disk needs them, as many as suit all disks
  // of the configuration.
  DiskThreads(const MachineConfig& config, std::vector<uint32_t> apic_ids,
              loop::EventLoop& main_loop);
  ~DiskThreads();
  DiskThreads(const DiskThreads&) = delete;
  DiskThreads& operator=(const DiskThreads&) = delete;

  // For the disks' blocking calls; made when the first disk asks.
  loop::Result<loop::WorkerPool*> workers();

  // Makes a disk's device from what `options` says of image, memory and errors, gives its queues
  // their first homes and takes care of them until forget().
  loop::Result<std::unique_ptr<devices::VirtioBlk>> make_device(
      const DiskConfig& config, devices::VirtioBlk::Options options);
  // The device is stopped, or about to be destroyed.
  void forget(const devices::VirtioBlk& device);
  // From now on, while it runs too; kUnsupported when vCPUs cannot submit.
  loop::Result<void> set_submit(const devices::VirtioBlk& device, DiskSubmit submit);
  DiskActivity activity(const devices::VirtioBlk& device) const;

  // Whether vCPUs should have loops, for queues to live on.
  bool wants_vcpu_loops() const { return wants_vcpu_loops_; }
  // The vCPUs, before they run; kUnsupported when a disk insists on vCPUs that cannot submit.
  loop::Result<void> set_vcpus(std::vector<QueuePlacer::VcpuContext> vcpus);
  // What an exit from the guest costs on this host.
  void set_exit_cost(int64_t exit_ns) { placer_.set_exit_cost(exit_ns); }

  // Before devices are stopped: queues stay where they are until release().
  loop::Task<void> hold();
  void release() { placer_.release(); }
  // The devices are stopped for good, and the vCPUs are about to go.
  void leave_vcpus() { placer_.leave_vcpus(); }

 private:
  struct Disk;
  loop::Result<void> ensure_iothreads(const DiskConfig& config);
  loop::Result<void> start_iothreads(std::span<const DiskConfig> disks);
  DiskPlacement placement_of(const DiskConfig& config, size_t number, uint16_t queues) const;
  loop::Result<void> check_submit(const DiskConfig& config) const;
  const Disk* find(const devices::VirtioBlk& device) const;

  loop::EventLoop& main_loop_;
  const WorkersConfig workers_config_;
  std::vector<DiskConfig> boot_disks_;  // Until the threads are made.
  const std::vector<IothreadConfig> iothreads_config_;
  const CpuConfig cpus_config_;
  const bool wants_vcpu_loops_;
  const HostTopology topology_;
  const UsableCpus usable_;
  HostLoad load_;
  bool vcpus_can_submit_ = true;  // Until they turn out not to.
  size_t disks_so_far_ = 0;
  // In the order of construction; destroyed the other way round.
  std::vector<PlannedIothread> plans_;
  std::vector<std::unique_ptr<loop::IoThread>> iothreads_;
  std::unique_ptr<loop::WorkerPool> workers_;  // Goes before the loops it serves.
  QueuePlacer placer_;
  std::list<std::unique_ptr<Disk>> disks_;
};

}  // namespace skiff::vmm
