// SPDX-License-Identifier: GPL-2.0-or-later
// DiskRig: a PCI bus with a virtio-blk disk that comes and goes, and what its guest's driver does
// with registers: set-up, resets, kicks, MSI-X.
//
// Thread: the test's, which is the main loop's and plays all vCPUs. Ownership: borrows what Options
// names; the disk is unplugged before it goes.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/error_policy.h"
#include "devices/core/bus.h"
#include "devices/core/guest_memory.h"
#include "devices/core/msi.h"
#include "devices/pci/pci_bus.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "tests/devices/pci/pci_driver.h"

namespace skiff::sim {

class DiskRig {
 public:
  static constexpr size_t kQueues = 3;
  // Beside that of the configuration, 0. Fewer than queues: they share.
  static constexpr uint16_t kVectors = 2;

  struct Options {
    loop::EventLoop* main_loop = nullptr;
    const devices::GuestMemory* memory = nullptr;
    block::BlockBackend* image = nullptr;
    devices::QueueHome home;  // Of all queues of a new disk.
    uint16_t queue_size = 16;
    block::ErrorPolicies errors;
  };
  explicit DiskRig(const Options& options);
  ~DiskRig();
  DiskRig(const DiskRig&) = delete;
  DiskRig& operator=(const DiskRig&) = delete;

  void plug();
  // No register answers any more, as when the guest has ejected it or it was pulled.
  void take_out(devices::PciBus::Removal removal);
  // After that, when no vCPU is inside a register of it: everything that was asked of the disk
  // ends, then it goes; is_plugged() is false then.
  void begin_leaving();
  bool is_plugged() const { return disk_ != nullptr; }
  bool is_leaving() const { return is_leaving_; }
  devices::VirtioBlk& disk() { return *disk_; }
  // Stays the same over all disks.
  block::DrainPoint& drain_point() { return point_; }

  // The driver of a disk that is plugged and not leaving.
  void start(std::span<const devices::QueueLayout> queues, uint64_t features);
  void begin_reset() { set(kStatus, 1, 0); }
  bool is_reset() const { return get(kStatus, 1) == 0; }
  bool needs_reset() const;
  void begin_queue_reset(devices::QueueIndex queue);
  bool is_queue_resetting(devices::QueueIndex queue) const;
  void start_queue(devices::QueueIndex queue, const devices::QueueLayout& layout);

  // Where a kick would go now; and one that went there, however late it arrives.
  devices::DoorbellPath doorbell_path(devices::QueueIndex queue) const;
  void deliver_kick(devices::QueueIndex queue, devices::DoorbellPath path);

  // Vectors are 1 to kVectors. What the driver is told of meanwhile it must look for by itself.
  void assign(devices::QueueIndex queue, uint16_t vector);
  uint16_t vector_of(devices::QueueIndex queue) const { return vectors_[queue]; }
  void set_masked(uint16_t vector, bool masked);
  // Another message for the vector, as when an interrupt moves to another CPU. Messages of before
  // still come.
  void rewrite(uint16_t vector);
  // True if it has interrupted since the last call.
  bool take_interrupt(uint16_t vector);

 private:
  // The data of a message: its vector, and how often that has been rewritten.
  class Interrupts final : public devices::MsiSink {
   public:
    loop::Result<std::unique_ptr<devices::MsiVector>> create_vector() override;
    std::array<std::atomic<bool>, kVectors + 1> raised{};
  };

  static constexpr uint32_t kStatus = 0x14;  // Common configuration (virtio 1.2, 4.1.4.3).

  uint64_t where(uint8_t type) const;
  void set(uint32_t field, uint32_t size, uint64_t value) const {
    driver_->write_memory(common_ + field, size, value);
  }
  uint64_t get(uint32_t field, uint32_t size) const {
    return driver_->read_memory(common_ + field, size);
  }
  void set_up(devices::QueueIndex queue, const devices::QueueLayout& layout);
  void write_vector(uint16_t vector);
  loop::Task<void> leave();

  const Options options_;
  block::DrainPoint point_;
  loop::TaskScope tasks_;
  devices::MmioBus mmio_;
  devices::PioBus pio_;
  Interrupts interrupts_;
  devices::FakeDoorbellHub doorbells_;
  std::unique_ptr<devices::PciBus> bus_;

  std::unique_ptr<devices::VirtioBlk> disk_;
  std::unique_ptr<devices::VirtioPci> transport_;
  uint8_t slot_ = 0;
  bool is_leaving_ = false;
  std::optional<devices::PciDriver> driver_;
  uint64_t common_ = 0;
  uint64_t doorbell_ = 0;
  std::array<uint16_t, kQueues> vectors_{};
  std::array<bool, kVectors + 1> masked_{};
  uint32_t rewrites_ = 0;
};

}  // namespace skiff::sim
