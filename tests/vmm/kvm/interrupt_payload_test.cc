// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <memory>

#include "tests/vmm/kvm/payload_test_guest.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {
namespace {

constexpr uint64_t kHandler = 0x20000;
constexpr uint8_t kMsiVectorNumber = 0x41;
constexpr uint8_t kReady = 0x01;
constexpr uint8_t kHandled = 0x77;

// Writes a byte to a port below 256.
Code out_to(uint8_t port, uint8_t value) { return set_al(value) + Code{0xe6, port}; }

// Switches the local APIC on, lets interrupts in, says so, and halts.
Code wait_for_interrupts() {
  return set_ebx(0xfee0'00f0) + Code{0xc7, 0x03, 0xff, 0x01, 0, 0} +     // mov dword [rbx], 0x1ff
         set_port(kTestPort) + set_al(kReady) + out_al() + Code{0xfb} +  // sti
         halt_for_ever();
}

class InterruptPayload : public testing::Test {
 protected:
  void start(uint8_t vector, const Code& code) {
    ASSERT_TRUE(
        write_payload_code(guest_.memory(), set_al(kHandled) + out_al() + spin(), kHandler));
    ASSERT_TRUE(set_payload_vector(guest_.memory(), vector, kHandler));
    vcpu_ = guest_.start(VcpuMode::kLong64, code);
    expect_byte(kReady);
  }
  void expect_byte(uint8_t byte) {
    const VcpuExit exit = run_to_exit(*vcpu_);
    ASSERT_EQ(exit.kind, VcpuExitKind::kPio) << vcpu_->describe(exit);
    EXPECT_EQ(exit.data[0], byte);
  }
  PayloadTestGuest guest_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_F(InterruptPayload, TriggeredVectorArrivesInTheGuest) {
  start(kMsiVectorNumber, wait_for_interrupts());
  auto vector = guest_.vm().create_vector();
  ASSERT_TRUE(vector);
  ASSERT_TRUE((*vector)->configure({.address = 0xfee0'0000, .data = kMsiVectorNumber}));
  (*vector)->trigger();
  expect_byte(kHandled);
}

TEST_F(InterruptPayload, WritingTheTriggerDescriptorIsTheSame) {
  start(kMsiVectorNumber, wait_for_interrupts());
  auto vector = guest_.vm().create_vector();
  ASSERT_TRUE(vector);
  ASSERT_TRUE((*vector)->configure({.address = 0xfee0'0000, .data = kMsiVectorNumber}));
  const uint64_t one = 1;
  ASSERT_EQ(::write((*vector)->trigger_fd(), &one, sizeof(one)), 8);
  expect_byte(kHandled);
}

TEST_F(InterruptPayload, ReconfiguredVectorSendsTheNewMessage) {
  start(kMsiVectorNumber, wait_for_interrupts());
  auto vector = guest_.vm().create_vector();
  ASSERT_TRUE(vector);
  // Vector 0x50 has no handler: it would end in a triple fault.
  ASSERT_TRUE((*vector)->configure({.address = 0xfee0'0000, .data = 0x50}));
  ASSERT_TRUE((*vector)->configure({.address = 0xfee0'0000, .data = kMsiVectorNumber}));
  (*vector)->trigger();
  expect_byte(kHandled);
}

TEST_F(InterruptPayload, SingleMessageNeedsNoRoute) {
  start(kMsiVectorNumber, wait_for_interrupts());
  ASSERT_TRUE(guest_.vm().signal_msi({.address = 0xfee0'0000, .data = kMsiVectorNumber}));
  expect_byte(kHandled);
}

TEST_F(InterruptPayload, IsaLineArrivesThroughThePic) {
  // The PIC's usual initialisation: vectors from 0x20, one slave at IRQ 2, nothing masked.
  const Code pic = out_to(0x20, 0x11) + out_to(0x21, 0x20) + out_to(0x21, 0x04) +
                   out_to(0x21, 0x01) + out_to(0x21, 0x00);
  start(0x24, pic + wait_for_interrupts());
  auto line = guest_.vm().create_irq_line(4);
  ASSERT_TRUE(line);
  (*line)->set_level(true);
  (*line)->set_level(true);
  expect_byte(kHandled);
}

}  // namespace
}  // namespace skiff::vmm
