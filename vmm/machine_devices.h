// SPDX-License-Identifier: GPL-2.0-or-later
// MachineDevices: all devices of the machine, built from the configuration in one readable order.
//
// Thread: main loop; the buses and what is on them are used by vCPU threads.
// Ownership: owns buses, devices and disks; borrows Vm, memory and main loop, which outlive it. No
// vCPU may run when it is destroyed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/reset_port.h"
#include "devices/chardev/char_port.h"
#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/core/guest_memory.h"
#include "devices/core/irq_line.h"
#include "devices/pci/pci_bus.h"
#include "devices/rtc/wall_clock.h"
#include "devices/vhost_user/vhost_user_blk.h"
#include "devices/virtio/console/virtio_console.h"
#include "devices/virtio/virtio_device.h"
#include "firmware/acpi/tables.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/char_console_backend.h"
#include "vmm/config/machine_config.h"
#include "vmm/console_ports.h"
#include "vmm/disk_hotplug.h"
#include "vmm/disk_status.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_disks.h"
#include "vmm/serial_tail.h"

namespace skiff::vmm {

// What the guest does to the machine as a whole. Called on vCPU threads.
struct GuestEvents {
  std::function<void()> power_off;
  std::function<void()> reset;
  std::function<void()> panicked;
  std::function<void(uint32_t)> debug_exit;
};

class MachineDevices {
 public:
  struct Surroundings {
    Vm& vm;
    const devices::GuestMemory& memory;
    loop::EventLoop& main_loop;
    GuestEvents events;
    std::function<void()> quit;  // Typed on the terminal. Main loop.
    // A disk waits for the machine to be resumed, and why. Main loop.
    std::function<void(std::string)> disk_stopped = {};
    // Brings every vCPU out of the guest once, then calls disk_hotplug().note_vcpus_outside().
    std::function<void()> visit_vcpus = {};
    std::vector<uint32_t> apic_ids;
    uint32_t physical_address_bits = 36;
    // The memory, as other processes may map it; empty: they may not.
    std::vector<devices::SharedRegion> shared_memory = {};
    std::vector<ConsolePortSpec> console_ports;  // Besides the configuration's.
    SerialTail* serial_tail = nullptr;           // COM1, when the configuration has none.
  };

  static loop::Result<std::unique_ptr<MachineDevices>> create(const MachineConfig& config,
                                                              Surroundings surroundings);
  ~MachineDevices();
  MachineDevices(const MachineDevices&) = delete;
  MachineDevices& operator=(const MachineDevices&) = delete;

  devices::PioBus& pio() { return pio_; }
  devices::MmioBus& mmio() { return mmio_; }
  // The devices as ACPI describes them.
  const firmware::AcpiConfig& acpi() const { return acpi_; }

  // True if the guest listens to the button.
  bool press_power_button();
  // Tells the guest's console the size of our terminal, if it is on one.
  void update_terminal_size();
  MachineDisks& disks() { return *disks_; }
  DiskHotplug& disk_hotplug() { return *disk_hotplug_; }
  std::vector<DiskStatus> disk_status() const;
  // To the state after power-on. vCPUs are paused.
  loop::Task<void> reset();
  // Lets disks and consoles finish what the guest has handed over. vCPUs are paused and never run
  // again.
  loop::Task<void> shut_down();
  // Which device reset() or shut_down() is at; for messages.
  std::string_view waiting_for() const { return waiting_for_; }

 private:
  loop::Task<void> reset_all();
  explicit MachineDevices(Surroundings surroundings);
  loop::Result<void> build(const MachineConfig& config);
  loop::Result<void> add_pci();
  loop::Result<void> add_platform();
  loop::Result<void> add_serials(const MachineConfig& config);
  loop::Result<void> add_serial(std::unique_ptr<devices::CharBackend> host);
  loop::Result<void> add_debug_console(const std::string& backend);
  loop::Result<void> add_disks(const MachineConfig& config);
  // One that another process serves.
  loop::Result<void> add_vhost_disk(const DiskConfig& disk);
  loop::Task<void> close_vhost_disks();
  loop::Result<void> add_consoles(const MachineConfig& config);
  loop::Result<void> add_rng();
  loop::Result<void> add_virtio(devices::VirtioDevice& added, DeviceBus bus);
  loop::Result<devices::IrqLine*> add_irq_line(uint32_t gsi);
  loop::Result<std::unique_ptr<devices::CharBackend>> open_host_end(const std::string& text);
  template <typename T>
  T& keep(std::unique_ptr<T> device);

  Surroundings surroundings_;
  firmware::AcpiConfig acpi_;
  loop::MonotonicClock clock_;
  devices::WallClock wall_clock_;

  // In the order of construction; destroyed the other way round.
  devices::PioBus pio_;
  devices::MmioBus mmio_;
  std::vector<std::unique_ptr<devices::IrqLine>> irq_lines_;
  std::vector<std::unique_ptr<devices::CharPort>> char_ports_;
  std::vector<std::unique_ptr<CharConsoleBackend>> console_backends_;
  std::unique_ptr<MachineDisks> disks_;
  std::unique_ptr<loop::WorkerPool> vhost_workers_;             // Goes after those that use it.
  std::vector<std::unique_ptr<devices::VirtioDevice>> virtio_;  // But for disks of our own.
  std::vector<devices::VhostUserBlk*> vhost_disks_;
  std::unique_ptr<devices::PciBus> pci_;
  std::unique_ptr<DiskHotplug> disk_hotplug_;
  std::vector<std::unique_ptr<devices::Device>> devices_;  // Platform devices and transports.
  devices::AcpiPm* pm_ = nullptr;
  devices::VirtioConsole* terminal_console_ = nullptr;  // The one on stdio, if any.
  uint32_t mmio_slots_used_ = 0;
  uint32_t pci_slots_fixed_ = 1;  // The host bridge's, and others whose devices stay: by bit.
  std::string_view waiting_for_ = "its devices";
};

}  // namespace skiff::vmm
