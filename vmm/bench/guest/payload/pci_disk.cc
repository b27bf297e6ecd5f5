// SPDX-License-Identifier: GPL-2.0-or-later
// virtio over PCI (virtio 1.2, 4.1), found in the ECAM window.
#include <cstdint>

#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/guest/payload/console.h"
#include "vmm/bench/guest/payload/cpu.h"
#include "vmm/bench/guest/payload/machine_abi.h"
#include "vmm/bench/guest/payload/parameters.h"
#include "vmm/bench/guest/payload/virtio_disk.h"

namespace skiff::vmm::payload {
namespace {

constexpr uint32_t kSlots = 32;
constexpr uint64_t kFunctionBytes = 4096;
constexpr uint64_t kFunctionsEach = 8;
constexpr uint32_t kVirtioBlkModern = 0x1042'1af4;  // Device and vendor, 4.1.2.
constexpr uint32_t kVirtioBlkTransitional = 0x1001'1af4;

// PCI 3.0, 6.1 and 6.7.
constexpr uint64_t kCommand = 0x04;
constexpr uint16_t kCommandMemoryAndMaster = 0x6;
constexpr uint64_t kBars = 0x10;
constexpr uint64_t kCapabilities = 0x34;
constexpr uint8_t kCapabilityVendor = 0x09;
constexpr uint8_t kCapabilityMsix = 0x11;
constexpr uint16_t kMsixEnable = 0x8000;
constexpr uint64_t kVectorBytes = 16;

// 4.1.4.3.
enum Common : uint64_t {
  kDeviceFeatureSelect = 0,
  kDeviceFeature = 4,
  kDriverFeatureSelect = 8,
  kDriverFeature = 12,
  kNumQueues = 18,
  kDeviceStatus = 20,
  kQueueSelect = 22,
  kQueueSize = 24,
  kQueueVector = 26,
  kQueueEnable = 28,
  kQueueNotifyOffset = 30,
  kQueueDescriptors = 32,
  kQueueDriver = 40,
  kQueueDevice = 48,
};
constexpr uint8_t kCapCommon = 1;
constexpr uint8_t kCapNotify = 2;
constexpr uint8_t kCapDevice = 4;

uint64_t find_function(uint64_t ecam) {
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    const uint64_t function = ecam + slot * kFunctionsEach * kFunctionBytes;
    const auto id = mmio_read<uint32_t>(function);
    if (id == kVirtioBlkModern || id == kVirtioBlkTransitional) return function;
  }
  give_up("no virtio-blk device on PCI");
}

}  // namespace

// Gives the BAR an address, wherever it may be now: firmware that is not there may not have given
// it one, and what lies above 4 GiB is not mapped here.
uint64_t PciDisk::bar_address(const Parameters& parameters, uint64_t function, uint32_t bar) {
  if (bar >= 6) give_up("a capability names a BAR that does not exist", bar);
  if (bars_[bar] != 0) return bars_[bar];
  if (next_bar_ == 0) next_bar_ = parameters.bars;
  const uint64_t at = function + kBars + bar * 4;
  mmio_write<uint32_t>(at, ~0U);
  const auto mask = mmio_read<uint32_t>(at);
  const uint64_t size_bytes = uint64_t{~(mask & ~0xfU)} + 1;
  if ((mask & 1) != 0 || mask == 0 || size_bytes > (uint64_t{1} << 27))
    give_up("a BAR that is no memory, or too large", mask);
  next_bar_ = (next_bar_ + size_bytes - 1) & ~(size_bytes - 1);
  bars_[bar] = next_bar_;
  next_bar_ += size_bytes;
  mmio_write<uint32_t>(at, static_cast<uint32_t>(bars_[bar]));
  const bool is_64 = (mask & 0x6) == 0x4;
  if (is_64) mmio_write<uint32_t>(at + 4, 0);
  return bars_[bar];
}

void PciDisk::read_capabilities(const Parameters& parameters, uint64_t function) {
  uint64_t at = mmio_read<uint8_t>(function + kCapabilities) & 0xfcU;
  for (int left = 48; at != 0 && left > 0; --left) {
    const uint64_t capability = function + at;
    const auto id = mmio_read<uint8_t>(capability);
    if (id == kCapabilityVendor) {
      const auto type = mmio_read<uint8_t>(capability + 3);
      const auto bar = mmio_read<uint8_t>(capability + 4);
      const auto offset = mmio_read<uint32_t>(capability + 8);
      if (type == kCapCommon) common_ = bar_address(parameters, function, bar) + offset;
      if (type == kCapDevice) device_ = bar_address(parameters, function, bar) + offset;
      if (type == kCapNotify) {
        notify_ = bar_address(parameters, function, bar) + offset;
        notify_multiplier_ = mmio_read<uint32_t>(capability + 16);
      }
    } else if (id == kCapabilityMsix) {
      const auto table = mmio_read<uint32_t>(capability + 4);
      vectors_ = bar_address(parameters, function, table & 7) + (table & ~7U);
      vector_control_ = capability + 2;
    }
    at = mmio_read<uint8_t>(capability + 1) & 0xfcU;
  }
  if (common_ == 0 || notify_ == 0 || device_ == 0)
    give_up("the PCI device has no modern virtio registers");
}

void PciDisk::begin(const Parameters& parameters, uint64_t wanted_features, VirtioDisk& disk) {
  disk_ = &disk;
  irq_ = parameters.irq != 0;
  const uint64_t function = find_function(parameters.ecam);
  read_capabilities(parameters, function);
  mmio_write<uint16_t>(function + kCommand, kCommandMemoryAndMaster);
  if (irq_ && vectors_ == 0) give_up("the PCI device has no MSI-X");

  mmio_write<uint8_t>(common_ + kDeviceStatus, 0);
  while (mmio_read<uint8_t>(common_ + kDeviceStatus) != 0) pause();
  mmio_write<uint8_t>(common_ + kDeviceStatus, kStatusAcknowledge | kStatusDriver);
  uint64_t offered = 0;
  for (uint32_t word = 0; word < 2; ++word) {
    mmio_write<uint32_t>(common_ + kDeviceFeatureSelect, word);
    offered |= uint64_t{mmio_read<uint32_t>(common_ + kDeviceFeature)} << 32 * word;
  }
  disk.features = offered & wanted_features;
  for (uint32_t word = 0; word < 2; ++word) {
    mmio_write<uint32_t>(common_ + kDriverFeatureSelect, word);
    mmio_write<uint32_t>(common_ + kDriverFeature,
                         static_cast<uint32_t>(disk.features >> 32 * word));
  }
  constexpr uint8_t kAgreed = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;
  mmio_write<uint8_t>(common_ + kDeviceStatus, kAgreed);
  if ((mmio_read<uint8_t>(common_ + kDeviceStatus) & kStatusFeaturesOk) == 0)
    give_up("the device refuses the features", disk.features);
  disk.queues =
      (disk.features & kFeatureMq) != 0 ? mmio_read<uint16_t>(common_ + kNumQueues) : uint16_t{1};
  disk.capacity_sectors = mmio_read<uint32_t>(device_) | uint64_t{mmio_read<uint32_t>(device_ + 4)}
                                                             << 32;
  if (irq_) mmio_write<uint16_t>(vector_control_, kMsixEnable);
}

void PciDisk::add_queue(uint16_t queue, uint16_t size, const DriverRing::Places& places,
                        uint8_t apic_id) {
  mmio_write<uint16_t>(common_ + kQueueSelect, queue);
  if (mmio_read<uint16_t>(common_ + kQueueSize) < size)
    give_up("a queue of the device is smaller than asked for",
            mmio_read<uint16_t>(common_ + kQueueSize));
  mmio_write<uint16_t>(common_ + kQueueSize, size);
  mmio_write64(common_ + kQueueDescriptors, places.descriptors);
  mmio_write64(common_ + kQueueDriver, places.available);
  mmio_write64(common_ + kQueueDevice, places.used);
  if (irq_) {
    // Vector `queue` of the table; Intel SDM vol. 3A, 11.11.
    const uint64_t entry = vectors_ + queue * kVectorBytes;
    mmio_write<uint32_t>(entry, 0xfee0'0000U | uint32_t{apic_id} << 12);
    mmio_write<uint32_t>(entry + 4, 0);
    mmio_write<uint32_t>(entry + 8, PAYLOAD_VECTOR_INTERRUPT);
    mmio_write<uint32_t>(entry + 12, 0);
    mmio_write<uint16_t>(common_ + kQueueVector, queue);
    if (mmio_read<uint16_t>(common_ + kQueueVector) != queue)
      give_up("the device has no MSI-X vector for queue", queue);
  }
  const auto offset = mmio_read<uint16_t>(common_ + kQueueNotifyOffset);
  disk_->doorbells[queue] = {notify_ + uint64_t{offset} * notify_multiplier_, queue, false};
  mmio_write<uint16_t>(common_ + kQueueEnable, 1);
}

void PciDisk::go() {
  mmio_write<uint8_t>(common_ + kDeviceStatus,
                      kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
}

}  // namespace skiff::vmm::payload
