// SPDX-License-Identifier: GPL-2.0-or-later
// A small guest on the real /dev/kvm, for tests. Without a usable /dev/kvm the test fails.
//
// Thread: the test's. Ownership: owns Vm and memory; vCPUs go before it.
#pragma once

#include <initializer_list>
#include <memory>
#include <vector>

#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/memory_slots.h"

namespace skiff::vmm {

using Code = std::vector<uint8_t>;
Code operator+(Code first, const Code& second);

// Instructions. Ports are given in DX.
Code set_port(uint16_t port);  // mov dx, port
Code set_al(uint8_t value);    // mov al, value
Code set_ebx(uint32_t value);  // mov ebx, value
Code out_al();                 // out dx, al
Code spin();                   // jmp to itself
Code halt_for_ever();          // hlt, again and again

inline constexpr uint16_t kTestPort = 0xf4;
// Mapped, and no RAM there.
inline constexpr uint32_t kTestMmio = 0x1000'0000;

class PayloadTestGuest {
 public:
  explicit PayloadTestGuest(uint32_t max_msi_vectors = 4000);

  Vm& vm() { return *vm_; }
  const devices::GuestMemory& memory() { return memory_->memory(); }
  const KvmSystem& system() { return *system_; }

  // CPUID of one of `cpus` vCPUs.
  loop::Result<void> set_cpuid(Vcpu& vcpu, uint32_t cpus);
  // A vCPU that will run `code`.
  std::unique_ptr<Vcpu> start(VcpuMode mode, const Code& code);

 private:
  std::unique_ptr<KvmSystem> system_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<MemorySlots> memory_;
};

// Runs until something but kInterrupted comes.
VcpuExit run_to_exit(Vcpu& vcpu);

}  // namespace skiff::vmm
