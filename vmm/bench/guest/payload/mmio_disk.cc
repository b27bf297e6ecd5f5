// SPDX-License-Identifier: GPL-2.0-or-later
// virtio over MMIO (virtio 1.2, 4.2), found by looking where the virtual machines put it.
#include <cstdint>

#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/guest/payload/console.h"
#include "vmm/bench/guest/payload/cpu.h"
#include "vmm/bench/guest/payload/machine_abi.h"
#include "vmm/bench/guest/payload/parameters.h"
#include "vmm/bench/guest/payload/virtio_disk.h"

namespace skiff::vmm::payload {
namespace {

// QEMU's microvm has a device every 512 bytes, Skiff one every 4096: both are found by 512, as
// configuration space, which begins at 256, reads as zero behind a disk's own.
constexpr uint64_t kStepBytes = 0x200;
constexpr uint32_t kSteps = 24;
constexpr uint32_t kMagicValue = 0x7472'6976;  // "virt".
constexpr uint32_t kBlockDevice = 2;

// 4.2.2.
enum Register : uint64_t {
  kMagic = 0x00,
  kVersion = 0x04,
  kDeviceId = 0x08,
  kDeviceFeatures = 0x10,
  kDeviceFeaturesSelect = 0x14,
  kDriverFeatures = 0x20,
  kDriverFeaturesSelect = 0x24,
  kQueueSelect = 0x30,
  kQueueSizeMax = 0x34,
  kQueueSize = 0x38,
  kQueueReady = 0x44,
  kQueueNotify = 0x50,
  kStatus = 0x70,
  kQueueDescriptors = 0x80,
  kQueueDriver = 0x90,
  kQueueDevice = 0xa0,
  kConfig = 0x100,
};
constexpr uint64_t kConfigQueues = kConfig + 34;  // num_queues, 5.2.4.

uint64_t find_device(uint64_t first) {
  for (uint32_t step = 0; step < kSteps; ++step) {
    const uint64_t base = first + step * kStepBytes;
    if (mmio_read<uint32_t>(base + kMagic) != kMagicValue) continue;
    if (mmio_read<uint32_t>(base + kDeviceId) != kBlockDevice) continue;
    if (mmio_read<uint32_t>(base + kVersion) != 2)
      give_up(
          "the virtio-mmio device is a legacy one (QEMU: -global virtio-mmio.force-legacy=off)");
    return base;
  }
  give_up("no virtio-blk device on virtio-mmio");
}

}  // namespace

void MmioDisk::begin(const Parameters& parameters, uint64_t wanted_features, VirtioDisk& disk) {
  disk_ = &disk;
  base_ = find_device(parameters.mmio_base);
  mmio_write<uint32_t>(base_ + kStatus, 0);
  while (mmio_read<uint32_t>(base_ + kStatus) != 0) pause();
  mmio_write<uint32_t>(base_ + kStatus, kStatusAcknowledge | kStatusDriver);
  uint64_t offered = 0;
  for (uint32_t word = 0; word < 2; ++word) {
    mmio_write<uint32_t>(base_ + kDeviceFeaturesSelect, word);
    offered |= uint64_t{mmio_read<uint32_t>(base_ + kDeviceFeatures)} << 32 * word;
  }
  disk.features = offered & wanted_features;
  for (uint32_t word = 0; word < 2; ++word) {
    mmio_write<uint32_t>(base_ + kDriverFeaturesSelect, word);
    mmio_write<uint32_t>(base_ + kDriverFeatures,
                         static_cast<uint32_t>(disk.features >> 32 * word));
  }
  mmio_write<uint32_t>(base_ + kStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  if ((mmio_read<uint32_t>(base_ + kStatus) & kStatusFeaturesOk) == 0)
    give_up("the device refuses the features", disk.features);
  disk.queues =
      (disk.features & kFeatureMq) != 0 ? mmio_read<uint16_t>(base_ + kConfigQueues) : uint16_t{1};
  disk.capacity_sectors = mmio_read<uint32_t>(base_ + kConfig) |
                          uint64_t{mmio_read<uint32_t>(base_ + kConfig + 4)} << 32;
}

void MmioDisk::add_queue(uint16_t queue, uint16_t size, const DriverRing::Places& places, uint8_t) {
  mmio_write<uint32_t>(base_ + kQueueSelect, queue);
  if (mmio_read<uint32_t>(base_ + kQueueSizeMax) < size)
    give_up("a queue of the device is smaller than asked for",
            mmio_read<uint32_t>(base_ + kQueueSizeMax));
  mmio_write<uint32_t>(base_ + kQueueSize, size);
  mmio_write64(base_ + kQueueDescriptors, places.descriptors);
  mmio_write64(base_ + kQueueDriver, places.available);
  mmio_write64(base_ + kQueueDevice, places.used);
  disk_->doorbells[queue] = {base_ + kQueueNotify, queue, true};
  mmio_write<uint32_t>(base_ + kQueueReady, 1);
}

void MmioDisk::go() {
  mmio_write<uint32_t>(base_ + kStatus,
                       kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
}

}  // namespace skiff::vmm::payload
