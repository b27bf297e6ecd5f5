// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/disk_hotplug.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_hotplug.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/task.h"
#include "vmm/config/machine_config.h"
#include "vmm/disk_removal.h"

namespace skiff::vmm {

using devices::PciBus;
using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;
using State = DiskPlug::State;

namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

}  // namespace

DiskHotplug::DiskHotplug(Surroundings surroundings)
    : surroundings_(std::move(surroundings)),
      home_(surroundings_.main_loop),
      registers_({.raise_event = surroundings_.raise_event,
                  .ejected = [this](uint8_t slot) { on_ejected(slot); }}),
      tasks_(surroundings_.main_loop) {}

DiskHotplug::~DiskHotplug() = default;

Result<DiskHotplug::Disk*> DiskHotplug::plug(devices::VirtioDevice& device) {
  auto transport = devices::VirtioPci::create(
      {device, surroundings_.msi, surroundings_.doorbells, surroundings_.main_loop});
  if (!transport) return transport.error();
  auto slot = surroundings_.pci.add(**transport);
  if (!slot) return slot.error();
  Disk& disk = disks_.emplace_back(surroundings_.main_loop, device);
  disk.transport = *std::move(transport);
  disk.slot = *slot;
  return &disk;
}

Result<void> DiskHotplug::plug_at_boot(devices::VirtioDevice& device) {
  home_.assert_here();
  auto disk = plug(device);
  if (!disk) return disk.error();
  registers_.allow_eject((*disk)->slot);
  return {};
}

Result<std::string> DiskHotplug::add(const DiskConfig& config) {
  home_.assert_here();
  if (config.bus != DeviceBus::kPci)
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Disk {}: only disks with bus=pci can be added to a machine that runs",
                             config.path));
  if (!config.serial.empty()) {
    const auto other = surroundings_.host.find_disk(config.serial);
    if (other || other.error().kind() != ErrorKind::kNotFound)
      return Error(ErrorKind::kBusy,
                   fmt::format("Disk {}: the serial number {} means another disk already",
                               config.path, config.serial));
  }
  auto device = surroundings_.host.make_disk(config);
  if (!device) return device.error();
  auto disk = plug(**device);
  if (!disk) {
    surroundings_.host.destroy_disk(**device);
    return disk.error();
  }
  registers_.announce((*disk)->slot);
  SKIFF_LOG(kInfo, "{} ({}) was added in PCI slot {}", (*device)->name(), config.path,
            (*disk)->slot);
  return std::string((*device)->name());
}

Result<DiskHotplug::DiskAt> DiskHotplug::find(std::string_view which) {
  // One that is leaving is known by its name only.
  auto found = std::ranges::find_if(
      disks_, [which](const Disk& disk) { return disk.device.name() == which; });
  if (found != disks_.end()) return found;
  auto device = surroundings_.host.find_disk(which);
  if (!device) return device.error();
  found =
      std::ranges::find_if(disks_, [&device](const Disk& disk) { return &disk.device == *device; });
  if (found != disks_.end()) return found;
  return Error(ErrorKind::kUnsupported,
               fmt::format("{} cannot be removed: it was made with bus=mmio", (*device)->name()));
}

void DiskHotplug::remove(std::string_view which, const DiskRemoval& removal, Done done) {
  home_.assert_here();
  auto found = find(which);
  if (!found) return answer_later(std::move(done), found.error());
  Disk& disk = **found;
  add_waiter(disk, removal, std::move(done));
  if (disk.state == State::kLeaving) return;
  disk.state = State::kAskedFor;
  if (!removal.is_forced) return registers_.ask_for(disk.slot);
  // False: the guest has just given it up; was_ejected() is on its way.
  if (!registers_.forbid_eject(disk.slot)) return;
  surroundings_.pci.take(disk.slot, PciBus::Removal::kSurprise);
  registers_.announce_gone();
  begin_leaving(*found);
}

void DiskHotplug::on_ejected(uint8_t slot) {
  // At once: when the guest's method has ended, there is nobody in the slot any more.
  surroundings_.pci.take(slot, PciBus::Removal::kEjected);
  home_.loop().post([this, slot] { was_ejected(slot); });
}

void DiskHotplug::was_ejected(uint8_t slot) {
  home_.assert_here();
  // A new disk may have got the slot since: it comes behind the one that left.
  const auto found = std::ranges::find_if(disks_, [slot](const Disk& disk) {
    return disk.slot == slot && disk.state != State::kLeaving;
  });
  SKIFF_CHECK(found != disks_.end());
  if (found->state != State::kAskedFor)
    SKIFF_LOG_LIMITED(kInfo, "The guest has ejected {} by itself", found->device.name());
  begin_leaving(found);
}

void DiskHotplug::begin_leaving(DiskAt disk) {
  disk->state = State::kLeaving;
  surroundings_.host.retire_disk(disk->device);
  surroundings_.host.visit_vcpus();
  tasks_.spawn(leave(disk));
}

void DiskHotplug::note_vcpus_outside() {
  home_.assert_here();
  for (Disk& disk : disks_)
    if (disk.state == State::kLeaving && !std::exchange(disk.is_visited, true))
      disk.vcpus_outside.set(true);
}

Task<void> DiskHotplug::leave(DiskAt disk) {
  devices::VirtioDevice& device = disk->device;
  co_await disk->vcpus_outside;
  co_await disk->transport->reset();
  co_await surroundings_.host.detach_disk(device);
  SKIFF_LOG(kInfo, "{} was removed", device.name());
  surroundings_.pci.release(*disk->transport);
  const std::list<Waiter> waiters = take_waiters(*disk);
  disks_.erase(disk);
  surroundings_.host.destroy_disk(device);
  for (const Waiter& waiter : waiters) waiter.done({});
  if (!is_any_leaving() && all_left_ != nullptr) std::exchange(all_left_, nullptr)->set(true);
}

bool DiskHotplug::is_any_leaving() const {
  return std::ranges::any_of(disks_,
                             [](const Disk& disk) { return disk.state == State::kLeaving; });
}

Task<void> DiskHotplug::wait_until_all_left() {
  note_vcpus_outside();
  if (!is_any_leaving()) co_return;
  loop::OneShot<bool> all_left(home_.loop());
  all_left_ = &all_left;
  co_await all_left;
}

Task<void> DiskHotplug::reset(std::string_view& waiting_for) {
  home_.assert_here();
  waiting_for = "disks that are being removed";
  for (auto disk = disks_.begin(); disk != disks_.end(); ++disk) {
    if (disk->state != State::kAskedFor || !registers_.forbid_eject(disk->slot)) continue;
    surroundings_.pci.take(disk->slot, PciBus::Removal::kEjected);
    begin_leaving(disk);
  }
  co_await wait_until_all_left();
  co_await registers_.reset();
  // None comes or goes meanwhile: the vCPUs are paused, and commands wait for the reset's end.
  for (const Disk& disk : disks_) {
    waiting_for = disk.device.name();
    co_await disk.transport->reset();
  }
}

Task<void> DiskHotplug::shut_down(std::string_view& waiting_for) {
  co_await reset(waiting_for);
  const std::list<Waiter> waiters = std::exchange(waiters_, {});
  for (const Waiter& waiter : waiters)
    waiter.done(Error(ErrorKind::kCancelled, "The machine has ended"));
}

void DiskHotplug::add_waiter(Disk& disk, const DiskRemoval& removal, Done done) {
  waiters_.push_back({&disk, removal.timeout_ns, std::move(done), nullptr});
  const auto waiter = std::prev(waiters_.end());
  waiter->timer = std::make_unique<loop::Timer>(home_.loop(), loop::Priority::kService,
                                                [this, waiter] { on_timeout(waiter); });
  waiter->timer->arm_after(removal.timeout_ns);
}

void DiskHotplug::on_timeout(std::list<Waiter>::iterator waiter) {
  std::list<Waiter> expired;
  expired.splice(expired.end(), waiters_, waiter);
  const Disk& disk = *waiter->disk;
  const int64_t seconds = waiter->timeout_ns / kNsPerSecond;
  waiter->done(Error(
      ErrorKind::kBusy,
      disk.state == State::kLeaving
          ? fmt::format("{} is gone for the guest, but the host has not finished its requests "
                        "within {} s; it goes when they have ended",
                        disk.device.name(), seconds)
          : fmt::format("{}: The guest has not given it up within {} s. It still may, and it loses "
                        "it at its next reset; \"force\": true takes it away now",
                        disk.device.name(), seconds)));
}

std::list<DiskHotplug::Waiter> DiskHotplug::take_waiters(const Disk& disk) {
  std::list<Waiter> taken;
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    const auto next = std::next(waiter);
    if (waiter->disk == &disk) taken.splice(taken.end(), waiters_, waiter);
    waiter = next;
  }
  return taken;
}

void DiskHotplug::answer_later(Done done, Error error) {
  home_.loop().post([done = std::move(done), error = std::move(error)] { done(error); });
}

std::optional<DiskPlug> DiskHotplug::plug_of(std::string_view name) const {
  for (const Disk& disk : disks_)
    if (disk.device.name() == name) return DiskPlug{disk.slot, disk.state};
  return std::nullopt;
}

uint32_t DiskHotplug::slots() const {
  uint32_t slots = 0;
  for (const Disk& disk : disks_) slots |= uint32_t{1} << disk.slot;
  return slots;
}

}  // namespace skiff::vmm
