// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioPci: the PCI transport (virtio 1.2, 4.1), modern devices only.
//
// All registers are in one 64-bit memory BAR:
//
//   BAR 0   0x0000 +---------------------------------------------+
//                  | common configuration (0x40 bytes)           |  4.1.4.3
//           0x1000 +---------------------------------------------+
//                  | ISR status (1 byte)                         |  4.1.4.5
//           0x2000 +---------------------------------------------+
//                  | device configuration                        |  4.1.4.6
//           0x3000 +---------------------------------------------+
//                  | MSI-X pending bits, up to 2048              |  PCI 3.0, 6.8.2
//           0x4000 +---------------------------------------------+
//                  | doorbells: 4 bytes for each queue           |  4.1.4.4
//           0x8000 +---------------------------------------------+
//                  | MSI-X table, up to 2048 vectors of 16 bytes |  PCI 3.0, 6.8.2
//          0x10000 +---------------------------------------------+
//
// Interrupts are MSI-X, a vector for each queue and one for the configuration, which the driver
// assigns. There is no INTx pin: without MSI-X the ISR status says what happened, to a driver that
// polls it.
// Thread: registers from all vCPU threads; VirtioTransport from any, without a lock shared between
//         queues that have vectors of their own; create() and reset() on the main loop.
// Ownership: the machine's; borrows all that Options names. Destroyed after a reset(), or when the
//         device was never started.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/core/bus.h"
#include "devices/core/doorbell.h"
#include "devices/core/msi.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_device.h"
#include "devices/virtio/transport/queue_doorbells.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"

namespace skiff::devices {

class VirtioPci final : public PciDevice,
                        public VirtioTransport,
                        private BusDevice,
                        private VirtioRegisters::Transport {
 public:
  static constexpr uint8_t kBar = 0;
  static constexpr uint64_t kIsr = 0x1000;
  static constexpr uint64_t kDeviceConfig = 0x2000;
  static constexpr uint64_t kPendingBits = 0x3000;
  static constexpr uint64_t kDoorbells = 0x4000;
  static constexpr uint64_t kVectorTable = 0x8000;
  static constexpr uint64_t kBarSizeBytes = 0x10000;
  static constexpr uint32_t kDoorbellStrideBytes = 4;
  static constexpr uint16_t kQueuesMax = 2047;   // And a vector for the configuration.
  static constexpr uint16_t kNoVector = 0xffff;  // VIRTIO_MSI_NO_VECTOR, 4.1.5.1.2.

  struct Options {
    VirtioDevice& device;
    MsiSink& msi;
    DoorbellHub& doorbells;
    loop::EventLoop& main_loop;
  };

  // Attaches itself to the device. kInvalidArgument with more than kQueuesMax queues.
  static loop::Result<std::unique_ptr<VirtioPci>> create(const Options& options);

  // Device. Ends when the device has stopped, all registers as after power-on.
  loop::Task<void> reset() override;

  // VirtioTransport.
  void interrupt_queue(QueueIndex queue) override;
  void interrupt_config() override;
  void interrupt_queues(std::span<const QueueIndex> queues) override;
  void need_reset() override;
  void set_doorbell_path(QueueIndex queue, DoorbellPath path) override;

 private:
  explicit VirtioPci(const Options& options);
  void add_capabilities();
  struct Capability {
    uint8_t type = 0;
    uint32_t offset_bytes = 0;
    uint32_t length_bytes = 0;
  };
  uint16_t add_virtio_capability(const Capability& capability, std::span<const uint8_t> tail);

  // BusDevice: BAR 0.
  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  uint64_t read_common(uint64_t field) const;
  void write_common(uint64_t offset_bytes, std::span<const uint8_t> data);
  void write_common_field(uint64_t field, uint32_t value);
  void write_queue_address(uint64_t offset_bytes, std::span<const uint8_t> data);
  uint16_t checked_vector(uint32_t vector) const;
  void set_queue_vector(QueueIndex queue, uint16_t vector);
  // Tells the device where the interrupts of a queue, respectively of all that use a vector, go.
  void tell_target(QueueIndex queue);
  void on_vector_changed(uint16_t vector);
  void kick(uint64_t doorbell_offset_bytes);

  // PciDevice.
  void on_config_read(uint16_t offset_bytes, size_t size_bytes) override;
  void on_config_write(uint16_t offset_bytes, size_t size_bytes) override;
  void on_bar_moved(uint8_t index, std::optional<uint64_t> address) override;
  struct WindowAccess {
    uint32_t offset_bytes = 0;
    uint16_t length_bytes = 0;
  };
  std::optional<WindowAccess> window_access(uint16_t offset_bytes, size_t size_bytes) const;

  // VirtioRegisters::Transport.
  void on_start(const VirtioStart& start) override;
  void on_stop() override;
  void on_stopped() override;
  void on_queue_start(QueueIndex queue) override;
  void on_queue_stop(QueueIndex queue) override;
  void on_queue_stopped(QueueIndex queue) override;
  void send_config_interrupt() override;

  VirtioDevice& device_;
  loop::EventLoop& main_loop_;
  VirtioRegisters registers_;
  QueueDoorbells doorbells_;
  Msix msix_;
  uint16_t window_capability_ = 0;  // Where VIRTIO_PCI_CAP_PCI_CFG is.
  std::atomic<uint8_t> isr_{0};
  std::atomic<uint16_t> config_vector_{kNoVector};
  std::vector<std::atomic<uint16_t>> queue_vectors_;  // Its size never changes.
};

}  // namespace skiff::devices
