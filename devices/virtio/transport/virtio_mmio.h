// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioMmio: the memory-mapped transport (virtio 1.2, 4.2), version 2.
//
// One interrupt line, high while InterruptStatus has a bit set.
// Thread: registers from all vCPU threads; VirtioTransport from any: the interrupt status has one
//         mutex, held while the line is set. create() and reset() on the main loop.
// Ownership: the machine's, which puts it on the MMIO bus at Options::base; borrows all that
// Options
//         names. Destroyed after a reset(), or when the device was never started.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/core/doorbell.h"
#include "devices/core/irq_line.h"
#include "devices/virtio/transport/queue_doorbells.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {

class VirtioMmio final : public Device,
                         public BusDevice,
                         public VirtioTransport,
                         private VirtioRegisters::Transport {
 public:
  static constexpr uint64_t kSizeBytes = 0x1000;

  struct Options {
    VirtioDevice& device;
    DoorbellHub& doorbells;
    IrqLine& irq;
    loop::EventLoop& main_loop;
    uint64_t base = 0;  // Guest-physical, of the kSizeBytes of registers.
  };

  // Attaches itself to the device.
  static std::unique_ptr<VirtioMmio> create(const Options& options);

  // Device. Ends when the device has stopped, all registers as after power-on.
  std::string_view name() const override { return device_.name(); }
  loop::Task<void> reset() override;

  // BusDevice. Control registers are 32 bits wide and aligned; other accesses to them do nothing
  // and read all bits set (4.2.2.2).
  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;

  // VirtioTransport.
  void interrupt_queue(QueueIndex queue) override;
  void interrupt_config() override;
  void interrupt_queues(std::span<const QueueIndex> queues) override;
  void need_reset() override;
  void set_doorbell_path(QueueIndex queue, DoorbellPath path) override;

 private:
  explicit VirtioMmio(const Options& options);
  uint32_t read_register(uint64_t offset_bytes) const;
  uint32_t read_queue_register(uint64_t offset_bytes) const;
  void write_register(uint64_t offset_bytes, uint32_t value);
  void write_queue_register(uint64_t offset_bytes, uint32_t value);
  void write_status(uint32_t value);
  void reset_and_wait_for_stop();
  void reset_and_turn(loop::EventLoop& loop);
  void kick(uint32_t queue);
  void raise(uint32_t bits);
  void acknowledge(uint32_t bits);

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
  mutable loop::Mutex interrupt_mutex_;
  IrqLine& irq_;
  uint32_t interrupt_status_ SKIFF_GUARDED_BY(interrupt_mutex_) = 0;
};

}  // namespace skiff::devices
