// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/machine_devices.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/reset_port.h"
#include "devices/chardev/char_backend.h"
#include "devices/chardev/char_options.h"
#include "devices/chardev/char_port.h"
#include "devices/core/device.h"
#include "devices/core/irq_line.h"
#include "devices/debug/debug_ports.h"
#include "devices/i8042/i8042.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_hotplug.h"
#include "devices/rtc/cmos_rtc.h"
#include "devices/serial/uart16550.h"
#include "devices/vhost_user/vhost_user_blk.h"
#include "devices/virtio/console/console_port.h"
#include "devices/virtio/console/virtio_console.h"
#include "devices/virtio/rng/virtio_rng.h"
#include "devices/virtio/transport/virtio_mmio.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/virtio_device.h"
#include "firmware/acpi/resources.h"
#include "firmware/acpi/tables.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/char_console_backend.h"
#include "vmm/config/machine_config.h"
#include "vmm/console_ports.h"
#include "vmm/disk_hotplug.h"
#include "vmm/disk_status.h"
#include "vmm/machine_disks.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;

struct SerialPlace {
  uint16_t port;
  uint8_t irq;
};
// As on every PC. COM3 and COM4 have lines of their own here: edge-triggered ones cannot be shared.
constexpr std::array<SerialPlace, 4> kSerialPlaces = {
    {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 5}, {0x2e8, 7}}};

// IOAPIC pins that nobody on a PC has; each virtio-mmio device gets its own.
constexpr std::array<uint32_t, 10> kVirtioMmioGsis = {16, 17, 18, 19, 20, 21, 22, 23, 10, 11};

}  // namespace

MachineDevices::MachineDevices(Surroundings surroundings)
    : surroundings_(std::move(surroundings)) {}

// Devices first, then what they stand on.
MachineDevices::~MachineDevices() {
  disk_hotplug_.reset();
  devices_.clear();
  pci_.reset();
  virtio_.clear();
  disks_.reset();
}

Result<std::unique_ptr<MachineDevices>> MachineDevices::create(const MachineConfig& config,
                                                               Surroundings surroundings) {
  std::unique_ptr<MachineDevices> devices(new MachineDevices(std::move(surroundings)));
  SKIFF_RETURN_IF_ERROR(devices->build(config));
  return devices;
}

Result<void> MachineDevices::build(const MachineConfig& config) {
  acpi_.apic_ids = surroundings_.apic_ids;
  SKIFF_RETURN_IF_ERROR(add_pci());
  SKIFF_RETURN_IF_ERROR(add_platform());
  SKIFF_RETURN_IF_ERROR(add_serials(config));
  SKIFF_RETURN_IF_ERROR(add_disks(config));
  if (!config.debugcon.empty()) SKIFF_RETURN_IF_ERROR(add_debug_console(config.debugcon));
  SKIFF_RETURN_IF_ERROR(add_consoles(config));
  if (config.rng) SKIFF_RETURN_IF_ERROR(add_rng());
  // Every slot but those whose devices stay for good.
  acpi_.pci->hotplug = firmware::AcpiPciHotplug{.port = devices::PciHotplug::kBasePort,
                                                .event = devices::PciHotplug::kEvent,
                                                .slots = ~pci_slots_fixed_};
  return {};
}

template <typename T>
T& MachineDevices::keep(std::unique_ptr<T> device) {
  T& kept = *device;
  devices_.push_back(std::move(device));
  return kept;
}

Result<devices::IrqLine*> MachineDevices::add_irq_line(uint32_t gsi) {
  auto line = surroundings_.vm.create_irq_line(gsi);
  if (!line) return line.error();
  irq_lines_.push_back(*std::move(line));
  return irq_lines_.back().get();
}

Result<void> MachineDevices::add_pci() {
  const uint64_t ram_bytes = surroundings_.memory.size_bytes();
  const PciWindow window64 = pci_mmio64_window(ram_bytes, surroundings_.physical_address_bits);
  auto pci = devices::PciBus::create(mmio_, pio_,
                                     {.ecam_base = kEcamBase,
                                      .memory32 = {kPciMmio32Base, kPciMmio32SizeBytes},
                                      .memory64 = {window64.base, window64.size_bytes}});
  if (!pci) return pci.error();
  pci_ = *std::move(pci);
  auto& reset_port =
      keep(std::make_unique<devices::ResetPort>(surroundings_.events.reset, &pci_->config_ports()));
  SKIFF_RETURN_IF_ERROR(
      pio_.add(devices::PciBus::kConfigPorts, devices::PciBus::kConfigPortCount, reset_port));
  acpi_.reset_port = devices::ResetPort::kPort;
  acpi_.reset_value = devices::ResetPort::kResetValue;
  acpi_.pci = firmware::AcpiPciHost{.ecam_base = kEcamBase,
                                    .ecam_bytes = devices::PciBus::kEcamSizeBytes,
                                    .bus_count = 1,
                                    .memory32 = {kPciMmio32Base, kPciMmio32SizeBytes},
                                    .memory64 = {window64.base, window64.size_bytes}};
  return {};
}

// What every PC has.
Result<void> MachineDevices::add_platform() {
  loop::EventLoop& loop = surroundings_.main_loop;
  const GuestEvents& events = surroundings_.events;

  auto sci = add_irq_line(devices::AcpiPm::kSciIrq);
  if (!sci) return sci.error();
  devices::AcpiPm::Options pm_options;
  pm_options.timer_width = devices::AcpiPm::TimerWidth::k24Bits;
  pm_options.on_power_off = events.power_off;
  pm_ = &keep(std::make_unique<devices::AcpiPm>(loop, clock_, **sci, std::move(pm_options)));
  SKIFF_RETURN_IF_ERROR(pio_.add(devices::AcpiPm::kBasePort, devices::AcpiPm::kSizeBytes, *pm_));
  acpi_.pm1a_event_port = devices::AcpiPm::kEventPort;
  acpi_.pm1a_control_port = devices::AcpiPm::kControlPort;
  acpi_.pm_timer_port = devices::AcpiPm::kTimerPort;
  acpi_.gpe0_port = devices::AcpiPm::kGpePort;
  acpi_.s5_sleep_type = devices::AcpiPm::kSleepTypeS5;
  acpi_.sci_irq = devices::AcpiPm::kSciIrq;

  auto keyboard_irq = add_irq_line(devices::I8042::kIrq);
  if (!keyboard_irq) return keyboard_irq.error();
  auto& i8042 = keep(std::make_unique<devices::I8042>(**keyboard_irq, events.reset));
  SKIFF_RETURN_IF_ERROR(pio_.add(devices::I8042::kDataPort, 1, i8042.data_port()));
  SKIFF_RETURN_IF_ERROR(pio_.add(devices::I8042::kCommandPort, 1, i8042.command_port()));

  const uint64_t ram_bytes = surroundings_.memory.size_bytes();
  auto rtc_irq = add_irq_line(devices::CmosRtc::kIrq);
  if (!rtc_irq) return rtc_irq.error();
  auto& rtc = keep(std::make_unique<devices::CmosRtc>(
      loop, wall_clock_, **rtc_irq,
      devices::CmosRtc::MemorySize{low_ram_bytes(ram_bytes), high_ram_bytes(ram_bytes)}));
  SKIFF_RETURN_IF_ERROR(pio_.add(devices::CmosRtc::kBasePort, devices::CmosRtc::kSizeBytes, rtc));

  auto& debug_exit = keep(std::make_unique<devices::DebugExit>(events.debug_exit));
  for (const uint16_t port :
       {devices::DebugExit::kDefaultPort, devices::DebugExit::kQemuDefaultPort})
    SKIFF_RETURN_IF_ERROR(pio_.add(port, devices::DebugExit::kSizeBytes, debug_exit));
  auto& pvpanic = keep(std::make_unique<devices::PvPanic>(
      [panicked = events.panicked](devices::PvPanic::Event) { panicked(); }));
  SKIFF_RETURN_IF_ERROR(
      pio_.add(devices::PvPanic::kDefaultPort, devices::PvPanic::kSizeBytes, pvpanic));
  acpi_.pvpanic_port = devices::PvPanic::kDefaultPort;
  return {};
}

Result<std::unique_ptr<devices::CharBackend>> MachineDevices::open_host_end(
    const std::string& text) {
  auto config = devices::parse_char_option(text);
  if (!config) return config.error();
  devices::StdioOptions stdio;
  stdio.on_escape = [quit = surroundings_.quit](char key) {
    if (key == 'x') quit();
  };
  return devices::create_char_backend(surroundings_.main_loop, *config, stdio);
}

Result<void> MachineDevices::add_serials(const MachineConfig& config) {
  for (const std::string& text : config.serials) {
    auto host = open_host_end(text);
    if (!host) return host.error().with_context("serial", text);
    SKIFF_RETURN_IF_ERROR(add_serial(*std::move(host)));
  }
  if (!config.serials.empty() || surroundings_.serial_tail == nullptr) return {};
  return add_serial(surroundings_.serial_tail->make_backend());
}

Result<void> MachineDevices::add_serial(std::unique_ptr<devices::CharBackend> host) {
  const size_t index = acpi_.uarts.size();
  const SerialPlace place = kSerialPlaces[index];
  char_ports_.push_back(
      std::make_unique<devices::CharPort>(surroundings_.main_loop, std::move(host)));
  auto irq = add_irq_line(place.irq);
  if (!irq) return irq.error();
  auto& uart = keep(std::make_unique<devices::Uart16550>(*char_ports_.back(), **irq,
                                                         fmt::format("com{}", index + 1)));
  SKIFF_RETURN_IF_ERROR(pio_.add(place.port, devices::Uart16550::kSizeBytes, uart));
  acpi_.uarts.push_back({place.port, place.irq});
  SKIFF_LOG(kInfo, "COM{} is {}", index + 1, char_ports_.back()->description());
  return {};
}

Result<void> MachineDevices::add_debug_console(const std::string& backend) {
  auto host = open_host_end(backend);
  if (!host) return host.error().with_context("debugcon", backend);
  char_ports_.push_back(
      std::make_unique<devices::CharPort>(surroundings_.main_loop, *std::move(host)));
  auto& debugcon = keep(std::make_unique<devices::DebugConsole>(*char_ports_.back()));
  return pio_.add(devices::DebugConsole::kDefaultPort, devices::DebugConsole::kSizeBytes, debugcon);
}

Result<void> MachineDevices::add_disks(const MachineConfig& config) {
  disks_ = std::make_unique<MachineDisks>(
      config, MachineDisks::Surroundings{surroundings_.main_loop, surroundings_.memory,
                                         surroundings_.apic_ids, surroundings_.disk_stopped,
                                         surroundings_.visit_vcpus});
  disk_hotplug_ = std::make_unique<DiskHotplug>(DiskHotplug::Surroundings{
      surroundings_.main_loop, *pci_, surroundings_.vm, surroundings_.vm, *disks_,
      [this] { pm_->raise_event(devices::PciHotplug::kEvent); }});
  SKIFF_RETURN_IF_ERROR(pio_.add(devices::PciHotplug::kBasePort, devices::PciHotplug::kSizeBytes,
                                 disk_hotplug_->registers()));
  for (const DiskConfig& disk : config.disks) {
    if (!disk.vhost_user.empty()) {
      SKIFF_RETURN_IF_ERROR(add_vhost_disk(disk));
      continue;
    }
    auto device = disks_->make_disk(disk);
    if (!device) return device.error();
    if (disk.bus == DeviceBus::kPci)
      SKIFF_RETURN_IF_ERROR(disk_hotplug_->plug_at_boot(**device));
    else
      SKIFF_RETURN_IF_ERROR(add_virtio(**device, disk.bus));
  }
  return {};
}

Result<void> MachineDevices::add_vhost_disk(const DiskConfig& disk) {
  if (!vhost_workers_) {
    auto workers = loop::WorkerPool::create({.name = "vhost", .min_workers = 1, .max_workers = 4});
    if (!workers) return workers.error();
    vhost_workers_ = *std::move(workers);
  }
  const auto vcpus = static_cast<uint32_t>(surroundings_.apic_ids.size());
  auto device = devices::VhostUserBlk::create(
      {.main_loop = &surroundings_.main_loop,
       .pool = vhost_workers_.get(),
       .socket = disk.vhost_user,
       .name = fmt::format("vhost-user disk {}", disk.vhost_user),
       .queues = static_cast<uint16_t>(disk.queues != 0 ? disk.queues : vcpus),
       .queue_size = disk.queue_size,
       .memory = surroundings_.shared_memory});
  if (!device) return device.error().with_context("disk");
  vhost_disks_.push_back(device->get());
  virtio_.push_back(*std::move(device));
  return add_virtio(*virtio_.back(), disk.bus);
}

Task<void> MachineDevices::close_vhost_disks() {
  for (devices::VhostUserBlk* disk : vhost_disks_) {
    loop::OneShot<bool> closed(surroundings_.main_loop);
    disk->close([&closed] { closed.set(true); });
    co_await closed;
  }
}

Result<void> MachineDevices::add_consoles(const MachineConfig& config) {
  devices::VirtioConsole::Options options;
  // Linux up to 6.14 reads the fields of a resize the wrong way round, and no feature bit tells.
  options.resize_order = devices::VirtioConsole::ResizeOrder::kRowsFirst;
  bool is_on_stdio = false;
  for (const ConsoleConfig& console : config.consoles) {
    auto host = open_host_end(console.backend);
    if (!host) return host.error().with_context("console", console.backend);
    is_on_stdio = is_on_stdio || console.backend == "stdio";
    console_backends_.push_back(std::make_unique<CharConsoleBackend>(*std::move(host)));
    // A port without a name is a terminal for the guest, one with a name a stream to find by it.
    const auto kind = console.name.empty() ? devices::ConsolePort::Kind::kConsole
                                           : devices::ConsolePort::Kind::kStream;
    options.ports.push_back({kind, console.name, console_backends_.back().get()});
  }
  for (const ConsolePortSpec& port : surroundings_.console_ports) {
    const auto kind = port.is_console ? devices::ConsolePort::Kind::kConsole
                                      : devices::ConsolePort::Kind::kStream;
    options.ports.push_back({kind, port.name, port.backend});
  }
  if (options.ports.empty()) return {};
  auto device =
      devices::VirtioConsole::create(surroundings_.main_loop, surroundings_.memory, options);
  if (!device) return device.error().with_context("console");
  if (is_on_stdio) terminal_console_ = device->get();
  update_terminal_size();
  virtio_.push_back(*std::move(device));
  return add_virtio(*virtio_.back(), config.console_bus);
}

Result<void> MachineDevices::add_rng() {
  auto device = devices::VirtioRng::create(surroundings_.main_loop, surroundings_.memory);
  if (!device) return device.error();
  virtio_.push_back(*std::move(device));
  return add_virtio(*virtio_.back(), DeviceBus::kPci);
}

Result<void> MachineDevices::add_virtio(devices::VirtioDevice& added, DeviceBus bus) {
  if (bus == DeviceBus::kPci) {
    auto transport = devices::VirtioPci::create(
        {added, surroundings_.vm, surroundings_.vm, surroundings_.main_loop});
    if (!transport) return transport.error();
    auto slot = pci_->add(keep(*std::move(transport)));
    if (!slot) return slot.error();
    pci_slots_fixed_ |= uint32_t{1} << *slot;
    return {};
  }
  if (mmio_slots_used_ == kVirtioMmioGsis.size())
    return Error(ErrorKind::kExhausted,
                 fmt::format("At most {} devices fit on bus=mmio (use bus=pci)", mmio_slots_used_));
  const uint64_t base = kVirtioMmioBase + mmio_slots_used_ * kVirtioMmioSlotBytes;
  const uint32_t gsi = kVirtioMmioGsis[mmio_slots_used_++];
  auto irq = add_irq_line(gsi);
  if (!irq) return irq.error();
  auto& transport = keep(
      devices::VirtioMmio::create({added, surroundings_.vm, **irq, surroundings_.main_loop, base}));
  SKIFF_RETURN_IF_ERROR(mmio_.add(base, devices::VirtioMmio::kSizeBytes, transport));
  acpi_.virtio_mmio.push_back({base, kVirtioMmioSlotBytes, gsi, firmware::Trigger::kLevel});
  return {};
}

bool MachineDevices::press_power_button() { return pm_->press_power_button(); }

void MachineDevices::update_terminal_size() {
  winsize size = {};
  if (terminal_console_ != nullptr && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    terminal_console_->set_size(size.ws_col, size.ws_row);
}

std::vector<DiskStatus> MachineDevices::disk_status() const {
  std::vector<DiskStatus> all = disks_->status();
  for (DiskStatus& disk : all) disk.pci = disk_hotplug_->plug_of(disk.name);
  return all;
}

Task<void> MachineDevices::reset_all() {
  for (const auto& device : devices_) {
    waiting_for_ = device->name();
    co_await device->reset();
  }
}

Task<void> MachineDevices::reset() {
  co_await disks_->threads().hold();
  co_await disk_hotplug_->reset(waiting_for_);
  co_await reset_all();
  co_await pci_->reset();
  disks_->threads().release();
}

Task<void> MachineDevices::shut_down() {
  co_await disks_->threads().hold();
  // A reset of a virtio device ends when what it had in flight has ended.
  co_await disk_hotplug_->shut_down(waiting_for_);
  co_await reset_all();
  co_await disks_->leave_drains();
  co_await close_vhost_disks();
  disks_->threads().leave_vcpus();
  // Nobody waits for ever for a reader that does not read.
  constexpr int kTurnsMax = 100;
  constexpr int64_t kTurnNs = 10'000'000;
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    size_t pending = 0;
    for (const auto& port : char_ports_) pending += port->pending_output_bytes();
    if (pending == 0) break;
    co_await loop::sleep_for(surroundings_.main_loop, kTurnNs);
  }
}

}  // namespace skiff::vmm
