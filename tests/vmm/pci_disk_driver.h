// SPDX-License-Identifier: GPL-2.0-or-later
// PciDiskDriver: the guest's driver of a virtio-blk disk on the PCI bus, as far as a test of the
// machine's side needs one: one queue, writes, no interrupts.
//
// Thread: the test's, which is also the disk's home. Ownership: borrows bus and memory.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "loop/testing/manual_loop.h"
#include "tests/devices/pci/pci_driver.h"

namespace skiff::vmm {

class PciDiskDriver {
 public:
  // Of guest memory, for ring and buffers: 8 MiB for all.
  static constexpr uint64_t kBytesPerSlot = 256 << 10;

  PciDiskDriver(const devices::MmioBus& mmio, uint8_t slot, devices::FakeGuestMemory& memory)
      : pci_(mmio, slot),
        memory_(memory),
        driver_(memory.memory(),
                {.queue_size = 8, .base = {slot * kBytesPerSlot}, .arena_bytes = kBytesPerSlot}) {}

  // Feature negotiation, queue 0, DRIVER_OK; false when the device refuses.
  bool start(loop::ManualLoop& loop) {
    pci_.enable(devices::pci::kCommandMemory);
    common_ = where(1);
    doorbell_ = where(2);
    constexpr uint8_t kFeaturesOk =
        devices::kVirtioAcknowledge | devices::kVirtioDriver | devices::kVirtioFeaturesOk;
    set(kStatus, 1, devices::kVirtioAcknowledge | devices::kVirtioDriver);
    set(kDriverFeatureSelect, 4, 1);
    set(kDriverFeature, 4, 1);  // VERSION_1.
    set(kStatus, 1, kFeaturesOk);
    const devices::QueueLayout& layout = driver_.layout();
    set(kQueueSelect, 2, 0);
    set(kQueueSize, 2, layout.size);
    set(kQueueDesc, 8, layout.descriptors.value);
    set(kQueueDriver, 8, layout.available.value);
    set(kQueueDevice, 8, layout.used.value);
    set(kQueueEnable, 2, 1);
    set(kStatus, 1, kFeaturesOk | devices::kVirtioDriverOk);
    loop.run_until_idle();
    return device_status() == (kFeaturesOk | devices::kVirtioDriverOk);
  }
  void reset(loop::ManualLoop& loop) {
    set(kStatus, 1, 0);
    loop.run_until_idle();
  }
  uint64_t device_status() const { return pci_.read_memory(common_ + kStatus, 1); }

  // The address of the request's status byte.
  devices::GuestAddress offer_write(uint64_t sector, std::span<const std::byte> data) {
    struct {
      uint32_t type = VIRTIO_BLK_T_OUT;
      uint32_t reserved = 0;
      uint64_t sector = 0;
    } header;
    header.sector = sector;
    const devices::GuestAddress status = driver_.allocate(1);
    memory_.memory().store(status, uint8_t{0xee});
    const std::array<devices::DriverBuffer, 3> chain = {
        driver_.allocate_with(std::as_bytes(std::span(&header, 1))), driver_.allocate_with(data),
        devices::DriverBuffer::writable(status, 1)};
    driver_.offer(chain);
    return status;
  }
  bool has_room() {
    driver_.collect_all();
    return driver_.free_descriptors() >= 3;
  }
  // False when the device does not listen.
  bool ring(devices::FakeDoorbellHub& doorbells, loop::ManualLoop& loop) const {
    const bool rang = doorbells.ring(doorbell_, 2, 0);
    loop.run_until_idle();
    return rang;
  }
  int status(devices::GuestAddress at) const {
    return memory_.memory().load<uint8_t>(at).value_or(0xff);
  }
  void kick(devices::FakeDoorbellHub& doorbells, loop::ManualLoop& loop) const {
    EXPECT_TRUE(ring(doorbells, loop));
  }

 private:
  // Fields of the common configuration (virtio 1.2, 4.1.4.3).
  static constexpr uint32_t kDriverFeatureSelect = 0x08;
  static constexpr uint32_t kDriverFeature = 0x0c;
  static constexpr uint32_t kStatus = 0x14;
  static constexpr uint32_t kQueueSelect = 0x16;
  static constexpr uint32_t kQueueSize = 0x18;
  static constexpr uint32_t kQueueEnable = 0x1c;
  static constexpr uint32_t kQueueDesc = 0x20;
  static constexpr uint32_t kQueueDriver = 0x28;
  static constexpr uint32_t kQueueDevice = 0x30;

  uint64_t where(uint8_t type) const {
    const auto capability = pci_.find_virtio(type);
    return pci_.bar(capability->bar) + capability->offset;
  }
  void set(uint32_t field, uint32_t size, uint64_t value) const {
    pci_.write_memory(common_ + field, size, value);
  }

  devices::PciDriver pci_;
  devices::FakeGuestMemory& memory_;
  devices::GuestDriver driver_;
  uint64_t common_ = 0;
  uint64_t doorbell_ = 0;
};

}  // namespace skiff::vmm
