// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/disk_rig.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/core/msi.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/result.h"
#include "loop/task.h"

namespace skiff::sim {

using devices::DoorbellPath;
using devices::QueueIndex;

namespace {

// Common configuration (virtio 1.2, 4.1.4.3).
constexpr uint32_t kDriverFeatureSelect = 0x08;
constexpr uint32_t kDriverFeature = 0x0c;
constexpr uint32_t kConfigVector = 0x10;
constexpr uint32_t kQueueSelect = 0x16;
constexpr uint32_t kQueueSize = 0x18;
constexpr uint32_t kQueueVector = 0x1a;
constexpr uint32_t kQueueEnable = 0x1c;
constexpr uint32_t kQueueDesc = 0x20;
constexpr uint32_t kQueueDriver = 0x28;
constexpr uint32_t kQueueDevice = 0x30;
constexpr uint32_t kQueueReset = 0x3a;

constexpr uint8_t kCommonCapability = 1;  // 4.1.4.
constexpr uint8_t kDoorbellCapability = 2;
constexpr uint64_t kDoorbellStride = 4;
constexpr uint32_t kRewritesPerVector = 1 << 16;
constexpr uint64_t kMsiAddress = 0xfee0'0000;
constexpr uint8_t kFeaturesOk =
    devices::kVirtioAcknowledge | devices::kVirtioDriver | devices::kVirtioFeaturesOk;

}  // namespace

loop::Result<std::unique_ptr<devices::MsiVector>> DiskRig::Interrupts::create_vector() {
  class Vector final : public devices::MsiVector {
   public:
    explicit Vector(Interrupts& interrupts) : interrupts_(interrupts) {}
    loop::Result<void> configure(const devices::MsiMessage& message) override {
      data_.store(message.data);
      return {};
    }
    void trigger() override { interrupts_.raised.at(data_.load() / kRewritesPerVector) = true; }
    int trigger_fd() const override { return -1; }

   private:
    Interrupts& interrupts_;
    std::atomic<uint32_t> data_{0};
  };
  return std::unique_ptr<devices::MsiVector>(new Vector(*this));
}

DiskRig::DiskRig(const Options& options)
    : options_(options), point_(*options.main_loop, "disk rig"), tasks_(*options.main_loop) {
  bus_ = *devices::PciBus::create(mmio_, pio_,
                                  {.ecam_base = devices::PciDriver::kEcamBase,
                                   .memory32 = devices::PciWindow(0xc000'0000, 0x1000'0000),
                                   .memory64 = devices::PciWindow(0x10'0000'0000, 0x1'0000'0000)});
}

DiskRig::~DiskRig() { SKIFF_CHECK(!is_plugged()); }

void DiskRig::plug() {
  SKIFF_CHECK(!is_plugged());
  disk_ = *devices::VirtioBlk::create(
      {.queues = std::vector<devices::QueueHome>(kQueues, options_.home),
       .memory = options_.memory,
       .image = options_.image,
       .queue_size = options_.queue_size,
       .errors = options_.errors});
  transport_ = *devices::VirtioPci::create({.device = *disk_,
                                            .msi = interrupts_,
                                            .doorbells = doorbells_,
                                            .main_loop = *options_.main_loop});
  slot_ = *bus_->add(*transport_);
  for (QueueIndex queue = 0; queue < kQueues; ++queue)
    point_.join(disk_->drain_party(queue), *options_.main_loop, std::to_string(queue));

  driver_.emplace(mmio_, slot_);
  driver_->enable(devices::pci::kCommandMemory);
  common_ = where(kCommonCapability);
  doorbell_ = where(kDoorbellCapability);
  driver_->set_msix_control(devices::pci::kMsixEnable | devices::pci::kMsixFunctionMask);
  masked_.fill(false);
  for (uint16_t vector = 0; vector <= kVectors; ++vector) {
    write_vector(vector);
    driver_->mask_vector(vector, false);
  }
  driver_->set_msix_control(devices::pci::kMsixEnable);
  for (size_t queue = 0; queue < kQueues; ++queue)
    vectors_[queue] = static_cast<uint16_t>(1 + queue % kVectors);
}

void DiskRig::take_out(devices::PciBus::Removal removal) {
  SKIFF_CHECK(is_plugged() && !is_leaving_);
  is_leaving_ = true;
  bus_->take(slot_, removal);
}

void DiskRig::begin_leaving() { tasks_.spawn(leave()); }

// As the machine does it (vmm/disk_hotplug.cc).
loop::Task<void> DiskRig::leave() {
  co_await transport_->reset();
  for (QueueIndex queue = 0; queue < kQueues; ++queue) {
    loop::OneShot<bool> left(*options_.main_loop);
    point_.leave(disk_->drain_party(queue), [&left] { left.set(true); });
    co_await left;
  }
  bus_->release(*transport_);
  transport_.reset();
  disk_.reset();
  is_leaving_ = false;
}

uint64_t DiskRig::where(uint8_t type) const {
  const auto capability = driver_->find_virtio(type);
  return driver_->bar(capability->bar) + capability->offset;
}

void DiskRig::start(std::span<const devices::QueueLayout> queues, uint64_t features) {
  set(kStatus, 1, devices::kVirtioAcknowledge | devices::kVirtioDriver);
  for (uint32_t word = 0; word < 2; ++word) {
    set(kDriverFeatureSelect, 4, word);
    set(kDriverFeature, 4, static_cast<uint32_t>(features >> (32 * word)));
  }
  set(kStatus, 1, kFeaturesOk);
  set(kConfigVector, 2, 0);
  for (QueueIndex queue = 0; queue < kQueues; ++queue) set_up(queue, queues[queue]);
  set(kStatus, 1, kFeaturesOk | devices::kVirtioDriverOk);
}

void DiskRig::set_up(QueueIndex queue, const devices::QueueLayout& layout) {
  set(kQueueSelect, 2, queue);
  set(kQueueSize, 2, layout.size);
  set(kQueueDesc, 8, layout.descriptors.value);
  set(kQueueDriver, 8, layout.available.value);
  set(kQueueDevice, 8, layout.used.value);
  set(kQueueVector, 2, vectors_[queue]);
  set(kQueueEnable, 2, 1);
}

bool DiskRig::needs_reset() const { return (get(kStatus, 1) & devices::kVirtioNeedsReset) != 0; }

void DiskRig::begin_queue_reset(QueueIndex queue) {
  set(kQueueSelect, 2, queue);
  set(kQueueReset, 2, 1);
}

bool DiskRig::is_queue_resetting(QueueIndex queue) const {
  set(kQueueSelect, 2, queue);
  return get(kQueueReset, 2) != 0;
}

void DiskRig::start_queue(QueueIndex queue, const devices::QueueLayout& layout) {
  set_up(queue, layout);
}

DoorbellPath DiskRig::doorbell_path(QueueIndex queue) const {
  return doorbells_.is_attached(doorbell_ + queue * kDoorbellStride) ? DoorbellPath::kKernel
                                                                     : DoorbellPath::kExit;
}

void DiskRig::deliver_kick(QueueIndex queue, DoorbellPath path) {
  if (path == DoorbellPath::kKernel)
    disk_->doorbell(queue).notify();
  else
    driver_->write_memory(doorbell_ + queue * kDoorbellStride, 2, queue);
}

void DiskRig::assign(QueueIndex queue, uint16_t vector) {
  vectors_[queue] = vector;
  set(kQueueSelect, 2, queue);
  set(kQueueVector, 2, vector);
}

void DiskRig::set_masked(uint16_t vector, bool masked) {
  masked_[vector] = masked;
  driver_->mask_vector(vector, masked);
}

void DiskRig::rewrite(uint16_t vector) {
  // As Linux: masked meanwhile, for address and data cannot be written at once.
  driver_->mask_vector(vector, true);
  write_vector(vector);
  driver_->mask_vector(vector, masked_[vector]);
}

void DiskRig::write_vector(uint16_t vector) {
  driver_->set_vector(vector,
                      {.address = kMsiAddress + (rewrites_ % 8) * 0x1000,
                       .data = vector * kRewritesPerVector + rewrites_ % kRewritesPerVector});
  ++rewrites_;
}

bool DiskRig::take_interrupt(uint16_t vector) { return interrupts_.raised[vector].exchange(false); }

}  // namespace skiff::sim
