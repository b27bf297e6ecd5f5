// SPDX-License-Identifier: GPL-2.0-or-later
// Vm: the virtual machine as KVM sees it: memory slots, the interrupt controllers in the kernel,
// doorbells and message-signalled interrupts.
//
// Thread: any; each call is one or two ioctls. Ownership: owns the VM descriptor. Vcpus, IRQ lines
// and MSI vectors borrow it and go before it; the KvmSystem outlives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/core/doorbell.h"
#include "devices/core/irq_line.h"
#include "devices/core/msi.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/kvm_system.h"

namespace skiff::vmm {

class MsiRouter;  // vmm/kvm/msi_router.h.

struct MemorySlot {
  uint32_t id = 0;
  uint64_t guest_base = 0;
  uint64_t size_bytes = 0;  // 0 removes the slot.
  void* host = nullptr;
  bool readonly = false;
};

class Vm final : public devices::DoorbellHub, public devices::MsiSink {
 public:
  static loop::Result<std::unique_ptr<Vm>> create(const KvmSystem& system);
  ~Vm() override;
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  const KvmSystem& system() const { return system_; }
  int fd() const { return fd_.get(); }

  loop::Result<void> set_memory_slot(const MemorySlot& slot);
  // Copies guest memory from what the slots say; false when there is none. For reports: nobody may
  // change slots meanwhile.
  bool read_memory(uint64_t guest_address, std::span<std::byte> into) const;

  // PIC, IOAPIC, PIT (speaker port included) and 32-bit x2APIC IDs: once, before lines, vectors and
  // vCPUs. After the memory slots: setting those takes some 5 ms when there are devices on KVM's
  // buses already. The kernel may offer fewer routes than `max_msi_vectors` asks for.
  loop::Result<void> add_interrupt_controllers(uint32_t max_msi_vectors = 4000);

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
  loop::Result<void> remember_power_on_state();

  const KvmSystem& system_;
  loop::UniqueFd keeper_;  // Goes after fd_: see late_release.h.
  loop::UniqueFd fd_;
  std::vector<MemorySlot> slots_;
  std::unique_ptr<MsiRouter> router_;
  std::unique_ptr<PowerOnState> power_on_;
};

}  // namespace skiff::vmm
