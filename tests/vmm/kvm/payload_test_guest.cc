// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/vmm/kvm/payload_test_guest.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "loop/result.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_layout.h"
#include "vmm/memory_slots.h"

namespace skiff::vmm {
namespace {

// No test makes sense without it, so say it once and loudly.
template <typename T>
T need(loop::Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "These tests need a usable /dev/kvm: %s\n",
                 result.error().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

}  // namespace

Code operator+(Code first, const Code& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Code set_port(uint16_t port) {
  return {0x66, 0xba, static_cast<uint8_t>(port), static_cast<uint8_t>(port >> 8)};
}
Code set_al(uint8_t value) { return {0xb0, value}; }
Code set_ebx(uint32_t value) {
  return {0xbb, static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 24)};
}
Code out_al() { return {0xee}; }
Code spin() { return {0xeb, 0xfe}; }
Code halt_for_ever() { return {0xf4, 0xeb, 0xfd}; }

PayloadTestGuest::PayloadTestGuest(uint32_t max_msi_vectors)
    : system_(std::make_unique<KvmSystem>(need(KvmSystem::open()))),
      vm_(need(Vm::create(*system_))),
      memory_(need(MemorySlots::create(*vm_, {.size_bytes = 2 * kMiB, .huge_pages = false}))) {
  EXPECT_TRUE(vm_->add_interrupt_controllers(max_msi_vectors));
  EXPECT_TRUE(write_payload_tables(memory()));
}

loop::Result<void> PayloadTestGuest::set_cpuid(Vcpu& vcpu, uint32_t cpus) {
  CpuidOptions options;
  options.topology = {.cpus = cpus, .sockets = 1, .cores = cpus, .threads = 1};
  return vcpu.set_cpuid(make_cpuid(system_->supported_cpuid(), options, vcpu.apic_id()));
}

std::unique_ptr<Vcpu> PayloadTestGuest::start(VcpuMode mode, const Code& code) {
  auto vcpu = need(Vcpu::create(*vm_, 0));
  EXPECT_TRUE(set_cpuid(*vcpu, 1));
  EXPECT_TRUE(write_payload_code(memory(), code));
  EXPECT_TRUE(vcpu->start_at(payload_boot_state(mode)));
  return vcpu;
}

VcpuExit run_to_exit(Vcpu& vcpu) {
  for (;;) {
    const auto exit = vcpu.run();
    if (!exit) {
      ADD_FAILURE() << exit.error().message();
      return {};
    }
    if (exit->kind != VcpuExitKind::kInterrupted) return *exit;
  }
}

}  // namespace skiff::vmm
