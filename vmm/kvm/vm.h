// SPDX-License-Identifier: GPL-2.0-or-later
// Vm: the virtual machine as KVM sees it: memory slots, the interrupt controllers in the kernel,
// doorbells and message-signalled interrupts.
//
// Thread: any; each call is one or two ioctls. Ownership: owns the VM descriptor. Vcpus, IRQ lines
// and MSI vectors borrow it and go before it; the KvmSystem outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/core/doorbell.h"
#include "devices/core/irq_line.h"
#include "devices/core/msi.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/kvm_system.h"

namespace skiff::vmm {

class MsiRouter;  // vmm/kvm/msi_router.h.

struct VmOptions {
  uint32_t max_msi_vectors = 4000;  // Less when the kernel offers fewer routes.
};

struct MemorySlot {
  uint32_t id = 0;
  uint64_t guest_base = 0;
  uint64_t size_bytes = 0;  // 0 removes the slot.
  void* host = nullptr;
  bool readonly = false;
};

class Vm final : public devices::DoorbellHub, public devices::MsiSink {
 public:
  // With PIC, IOAPIC, PIT (speaker port included) and 32-bit x2APIC IDs.
  static loop::Result<std::unique_ptr<Vm>> create(const KvmSystem& system,
                                                  const VmOptions& options = {});
  ~Vm() override;
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  const KvmSystem& system() const { return system_; }
  int fd() const { return fd_.get(); }

  loop::Result<void> set_memory_slot(const MemorySlot& slot);

  // A wire to GSI `gsi` (0 to 23). Callers of one line's set_level() serialise among themselves.
  loop::Result<std::unique_ptr<devices::IrqLine>> create_irq_line(uint32_t gsi);

  // DoorbellHub: KVM_IOEVENTFD.
  loop::Result<void> attach(const devices::DoorbellAddress& where,
                            const loop::EventNotifier& notifier) override;
  void detach(const devices::DoorbellAddress& where, const loop::EventNotifier& notifier) override;

  // MsiSink: an irqfd and a GSI route per vector; the route goes when the vector is destroyed.
  loop::Result<std::unique_ptr<devices::MsiVector>> create_vector() override;
  // Sends one message without a route (KVM_SIGNAL_MSI).
  loop::Result<void> signal_msi(const devices::MsiMessage& message);

  // PIC, IOAPIC and PIT to the state after power-on, for a machine reset. vCPUs are paused.
  loop::Result<void> reset_interrupt_controllers();

 private:
  struct PowerOnState;
  Vm(const KvmSystem& system, loop::UniqueFd fd);
  loop::Result<void> set_up(const VmOptions& options);
  loop::Result<void> remember_power_on_state();

  const KvmSystem& system_;
  loop::UniqueFd fd_;
  std::unique_ptr<MsiRouter> router_;
  std::unique_ptr<PowerOnState> power_on_;
};

}  // namespace skiff::vmm
