// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/vmm/kvm/payload_test_guest.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {
namespace {

using testing::HasSubstr;

class VcpuPayload : public testing::TestWithParam<VcpuMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, VcpuPayload,
                         testing::Values(VcpuMode::kLong64, VcpuMode::kLong64User),
                         [](const auto& mode) {
                           return mode.param == VcpuMode::kLong64 ? "Kernel" : "User";
                         });

TEST_P(VcpuPayload, PortWriteIsAnExitWithPortAndByte) {
  PayloadTestGuest guest;
  const auto vcpu = guest.start(GetParam(), set_port(0x3f8) + set_al(0x5a) + out_al() + spin());
  const VcpuExit exit = run_to_exit(*vcpu);
  ASSERT_EQ(exit.kind, VcpuExitKind::kPio);
  EXPECT_TRUE(exit.is_write);
  EXPECT_EQ(exit.address, 0x3f8u);
  ASSERT_EQ(exit.data.size(), 1u);
  EXPECT_EQ(exit.data[0], 0x5a);
}

TEST_P(VcpuPayload, PortReadDeliversWhatWasFilledIn) {
  PayloadTestGuest guest;
  const auto vcpu = guest.start(GetParam(), set_port(kTestPort) + Code{0xed} +  // in eax, dx
                                                Code{0xef} +                    // out dx, eax
                                                spin());
  const VcpuExit read = run_to_exit(*vcpu);
  ASSERT_EQ(read.kind, VcpuExitKind::kPio);
  EXPECT_FALSE(read.is_write);
  ASSERT_EQ(read.data.size(), 4u);
  for (uint8_t i = 0; i < 4; ++i) read.data[i] = static_cast<uint8_t>(0x10 + i);
  const VcpuExit write = run_to_exit(*vcpu);
  ASSERT_TRUE(write.is_write);
  ASSERT_EQ(write.data.size(), 4u);
  EXPECT_EQ(write.data[0], 0x10);
  EXPECT_EQ(write.data[3], 0x13);
}

TEST_P(VcpuPayload, AccessWithoutRamIsAnMmioExit) {
  PayloadTestGuest guest;
  const auto vcpu =
      guest.start(GetParam(), set_ebx(kTestMmio + 8) + Code{0x8b, 0x03} +  // mov eax, [rbx]
                                  Code{0x89, 0x43, 0x08} +                 // mov [rbx+8], eax
                                  spin());
  const VcpuExit read = run_to_exit(*vcpu);
  ASSERT_EQ(read.kind, VcpuExitKind::kMmio);
  EXPECT_FALSE(read.is_write);
  EXPECT_EQ(read.address, kTestMmio + 8u);
  ASSERT_EQ(read.data.size(), 4u);
  read.data[0] = 0xaa;
  const VcpuExit write = run_to_exit(*vcpu);
  ASSERT_EQ(write.kind, VcpuExitKind::kMmio);
  EXPECT_TRUE(write.is_write);
  EXPECT_EQ(write.address, kTestMmio + 16u);
  EXPECT_EQ(write.data[0], 0xaa);
}

TEST_P(VcpuPayload, TripleFaultIsAShutdownExit) {
  PayloadTestGuest guest;
  const auto vcpu = guest.start(GetParam(), {0x0f, 0x0b});  // ud2, and no vector leads anywhere
  EXPECT_EQ(run_to_exit(*vcpu).kind, VcpuExitKind::kShutdown);
}

TEST_P(VcpuPayload, ExitRequestCompletesTheAccessBeforeItInterrupts) {
  PayloadTestGuest guest;
  const auto vcpu = guest.start(GetParam(), set_port(kTestPort) + Code{0xec} + spin());
  const VcpuExit read = run_to_exit(*vcpu);  // in al, dx
  ASSERT_EQ(read.kind, VcpuExitKind::kPio);
  read.data[0] = 0x42;
  vcpu->request_exit();
  const auto interrupted = vcpu->run();
  ASSERT_TRUE(interrupted);
  EXPECT_EQ(interrupted->kind, VcpuExitKind::kInterrupted);
  const auto registers = vcpu->registers();
  ASSERT_TRUE(registers);
  EXPECT_EQ(registers->rax, 0x42u);
  EXPECT_EQ(registers->rip, kPayloadCodeBase + 5);
}

TEST_P(VcpuPayload, ReportHasReasonRegistersAndInstructionBytes) {
  PayloadTestGuest guest;
  const auto vcpu =
      guest.start(GetParam(), set_ebx(0x1234567) + set_port(kTestPort) + out_al() + spin());
  const VcpuExit exit = run_to_exit(*vcpu);
  // The exit leaves the OUT uncompleted or completed, depending on the processor.
  const std::string text = vcpu->describe(exit);
  EXPECT_THAT(text, HasSubstr("KVM exit reason 2"));
  EXPECT_THAT(text, HasSubstr("RBX=0000000001234567"));
  EXPECT_THAT(text, HasSubstr("RIP=0000000000010"));
  EXPECT_THAT(text, testing::ContainsRegex("Instruction bytes: (ee )?eb fe"));
  EXPECT_THAT(text, HasSubstr(GetParam() == VcpuMode::kLong64 ? "CPL=0" : "CPL=3"));
}

TEST_P(VcpuPayload, StartedAgainItForgetsWhatItWas) {
  PayloadTestGuest guest;
  const Code code = Code{0xff, 0xc3} +              // inc ebx
                    Code{0xf3, 0x0f, 0x6f, 0x03} +  // movdqu xmm0, [rbx]
                    Code{0x88, 0xd8} +              // mov al, bl
                    set_port(kTestPort) + out_al() + spin();
  // Vector state in kernel mode is not emulated everywhere: leave it out there.
  const Code scalar = Code{0xff, 0xc3} + Code{0x88, 0xd8} + set_port(kTestPort) + out_al() + spin();
  const auto vcpu = guest.start(GetParam(), GetParam() == VcpuMode::kLong64User ? code : scalar);
  for (int round = 0; round < 3; ++round) {
    const VcpuExit exit = run_to_exit(*vcpu);
    ASSERT_EQ(exit.kind, VcpuExitKind::kPio);
    EXPECT_EQ(exit.data[0], 1);
    EXPECT_EQ(vcpu->starts(), static_cast<uint32_t>(round + 1));
    vcpu->request_exit();
    ASSERT_TRUE(vcpu->run());  // Completes the OUT.
    vcpu->clear_exit_request();
    const auto started = vcpu->start_at(payload_boot_state(GetParam()));
    ASSERT_TRUE(started) << started.error().message();
  }
}

TEST(VcpuPayloadAp, WaitsForItsSipiAndCanBeInterrupted) {
  PayloadTestGuest guest;
  auto vcpu = Vcpu::create(guest.vm(), 1);
  ASSERT_TRUE(vcpu) << vcpu.error().message();
  ASSERT_TRUE(guest.set_cpuid(**vcpu, 2));
  ASSERT_TRUE((*vcpu)->wait_for_sipi());
  (*vcpu)->request_exit();
  const auto exit = (*vcpu)->run();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->kind, VcpuExitKind::kInterrupted);
}

TEST(VcpuPayloadAp, TheSameApicIdTwiceIsAnError) {
  PayloadTestGuest guest;
  const auto first = Vcpu::create(guest.vm(), 3);
  ASSERT_TRUE(first);
  EXPECT_FALSE(Vcpu::create(guest.vm(), 3));
}

}  // namespace
}  // namespace skiff::vmm
