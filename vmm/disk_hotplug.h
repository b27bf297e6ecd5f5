// SPDX-License-Identifier: GPL-2.0-or-later
// DiskHotplug: the PCI disks of a machine, which come and go while the guest runs
// (docs/hotplug.md).
//
//   plugged --ask--> asked for --the guest ejects--> leaving --> gone
//      |                 |                              ^
//      +-----------------+------ force, guest reset ----+
//
// A disk that leaves is first off the PCI bus, so that nobody finds it any more. Then every vCPU
// has to be outside the guest once: whoever was inside one of the disk's registers has come out.
// Then it is reset, which ends when all that was in flight has; only then its parts go, and the
// lock of its image with them. Thread: main loop, but for what the guest ejects, which comes on a
// vCPU thread. Ownership: owns the registers and the disks' transports; borrows the rest. No vCPU
// may run, and
//         every transport have been reset, when it is destroyed.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "devices/core/doorbell.h"
#include "devices/core/msi.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_hotplug.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_removal.h"

namespace skiff::vmm {

class DiskHotplug {
 public:
  // Who owns the disks, from the image to the virtio device. Thread: main loop.
  class Host {
   public:
    // A disk without a transport; errors leave nothing behind.
    virtual loop::Result<devices::VirtioDevice*> make_disk(const DiskConfig& config) = 0;
    // By name, serial number or path; kNotFound says what there is.
    virtual loop::Result<devices::VirtioDevice*> find_disk(std::string_view which) = 0;
    // From now on it is not found, and nothing is begun with it.
    virtual void retire_disk(devices::VirtioDevice& disk) = 0;
    // It was stopped. Ends when what was begun with it has ended, and nobody waits for it any more.
    virtual loop::Task<void> detach_disk(devices::VirtioDevice& disk) = 0;
    // Its transport has gone.
    virtual void destroy_disk(devices::VirtioDevice& disk) = 0;
    // Has note_vcpus_outside() called, in a later turn.
    virtual void visit_vcpus() = 0;

   protected:
    ~Host() = default;
  };
  struct Surroundings {
    loop::EventLoop& main_loop;
    devices::PciBus& pci;
    devices::MsiSink& msi;
    devices::DoorbellHub& doorbells;
    Host& host;
    std::function<void()> raise_event;  // General-purpose event PciHotplug::kEvent.
  };
  using Done = std::function<void(const loop::Result<void>&)>;

  explicit DiskHotplug(Surroundings surroundings);
  ~DiskHotplug();
  DiskHotplug(const DiskHotplug&) = delete;
  DiskHotplug& operator=(const DiskHotplug&) = delete;

  // What the guest sees; at PciHotplug::kBasePort.
  devices::PciHotplug& registers() { return registers_; }

  // Puts a disk of the host's on the bus before the guest runs.
  loop::Result<void> plug_at_boot(devices::VirtioDevice& disk);
  // Makes a disk and tells the guest; its name. Besides the host's errors kUnsupported for a bus
  // that cannot be plugged, kBusy for a serial number that means another disk already.
  loop::Result<std::string> add(const DiskConfig& config);
  // `done` runs in a later turn: when the disk has gone, or with kBusy when that has taken too
  // long; then it still may go later. Other errors as find_disk(), and kUnsupported with bus=mmio.
  void remove(std::string_view disk, const DiskRemoval& removal, Done done);

  // Of the disk with this name; nothing when it is not on the PCI bus.
  std::optional<DiskPlug> plug_of(std::string_view name) const;
  uint32_t slots() const;  // Of all disks on the bus: bit N is slot N.

  // Every vCPU is outside the guest at this moment.
  void note_vcpus_outside();
  // While the guest is reset; vCPUs are paused throughout. Disks it was asked for go without its
  // consent, the others are reset. `waiting_for` says at which one it is.
  loop::Task<void> reset(std::string_view& waiting_for);
  // The same for good; besides, whoever still waits for a disk to go is told that the machine
  // ended.
  loop::Task<void> shut_down(std::string_view& waiting_for);

 private:
  struct Disk {
    Disk(loop::EventLoop& loop, devices::VirtioDevice& its_device)
        : device(its_device), vcpus_outside(loop) {}
    devices::VirtioDevice& device;
    std::unique_ptr<devices::VirtioPci> transport;
    uint8_t slot = 0;
    DiskPlug::State state = DiskPlug::State::kPlugged;
    bool is_visited = false;
    loop::OneShot<bool> vcpus_outside;
  };
  using DiskAt = std::list<Disk>::iterator;
  struct Waiter {
    Disk* disk = nullptr;
    int64_t timeout_ns = 0;
    Done done;
    std::unique_ptr<loop::Timer> timer;
  };

  loop::Result<Disk*> plug(devices::VirtioDevice& device);
  loop::Result<DiskAt> find(std::string_view which);
  void on_ejected(uint8_t slot);  // vCPU threads.
  void was_ejected(uint8_t slot);
  void begin_leaving(DiskAt disk);
  loop::Task<void> leave(DiskAt disk);
  loop::Task<void> wait_until_all_left();
  bool is_any_leaving() const;
  void add_waiter(Disk& disk, const DiskRemoval& removal, Done done);
  void on_timeout(std::list<Waiter>::iterator waiter);
  std::list<Waiter> take_waiters(const Disk& disk);
  void answer_later(Done done, loop::Error error);

  const Surroundings surroundings_;
  const loop::Home home_;
  devices::PciHotplug registers_;
  std::list<Disk> disks_;  // In the order in which they came.
  std::list<Waiter> waiters_;
  loop::OneShot<bool>* all_left_ = nullptr;
  loop::TaskScope tasks_;
};

}  // namespace skiff::vmm
