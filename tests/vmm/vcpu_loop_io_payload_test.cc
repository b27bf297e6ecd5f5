// SPDX-License-Identifier: GPL-2.0-or-later
// A device in small whose home is its guest's vCPU: a doorbell that exits submits on the vCPU's own
// loop, and the completion interrupts the guest from there.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "devices/core/bus.h"
#include "loop/event_loop.h"
#include "tests/vmm/kvm/payload_test_guest.h"
#include "tests/vmm/vcpu_loop_fixture.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace skiff::vmm {
namespace {

constexpr uint16_t kDoorbell = 0x500;
constexpr uint8_t kVector = 0x41;
constexpr uint64_t kHandler = 0x20000;

class DoorbellPort final : public devices::BusDevice {
 public:
  explicit DoorbellPort(std::function<void()> rung) : rung_(std::move(rung)) {}
  void bus_read(uint64_t, std::span<uint8_t>) override {}
  void bus_write(uint64_t, std::span<const uint8_t>) override { rung_(); }

 private:
  std::function<void()> rung_;
};

class VcpuLoopIo : public VcpuLoopPayload {
 protected:
  void start(VcpuMode mode, const Code& code) {
    ASSERT_TRUE(pio_.add(kDoorbell, 1, doorbell_));
    create_with_loop(mode, code);
    if (IsSkipped()) return;
    reads_ = std::make_unique<ReadChain>(vcpu_loop(), file_);
  }

  std::unique_ptr<ReadChain> reads_;
  DoorbellPort doorbell_{[this] { rung(); }};
  std::function<void()> rung = [] {};
};

// Switches the local APIC on, rings, and halts; the handler acknowledges and rings again.
Code ring_and_halt() {
  return set_ebx(0xfee0'00f0) + Code{0xc7, 0x03, 0xff, 0x01, 0, 0} +  // mov dword [rbx], 0x1ff
         set_port(kDoorbell) + Code{0xfb} +                           // sti
         out_al() + halt_for_ever();
}
Code acknowledge_and_ring() {
  return set_ebx(0xfee0'00b0) + Code{0xc7, 0x03, 0, 0, 0, 0} +  // mov dword [rbx], 0
         out_al() + Code{0x48, 0xcf};                           // iretq
}

TEST_F(VcpuLoopIo, HaltedGuestGetsEachReadsInterruptAndNoneIsLost) {
  constexpr uint32_t kRounds = 5000;
  ASSERT_TRUE(write_payload_code(guest_.memory(), acknowledge_and_ring(), kHandler));
  ASSERT_TRUE(set_payload_vector(guest_.memory(), kVector, kHandler));
  start(VcpuMode::kLong64, ring_and_halt());
  if (IsSkipped()) return;
  uint32_t rings = 0;
  rung = [&] {
    if (++rings <= kRounds) reads_->submit();
  };
  reads_->on_read = [&] {
    EXPECT_TRUE(guest_.vm().signal_msi({.address = 0xfee0'0000, .data = kVector}));
  };
  const loop::LoopCounters before = vcpu_loop().counters();
  vcpu().resume();
  spin_until([&] { return reads_->done_here() + reads_->wrong() == kRounds; });
  const loop::LoopCounters after = vcpu_loop().counters();
  pause(vcpu());
  EXPECT_EQ(reads_->wrong(), 0u);
  EXPECT_GE(rings, kRounds);
  // One to submit each, and none to reap.
  EXPECT_LE(after.enters - before.enters, kRounds + kRounds / 20);
  EXPECT_LE(after.sleeps, before.sleeps + 1) << "it may have been on its way to sleep, paused";
  RecordProperty("missed", static_cast<int>(vcpu().loop_counters().missed));
  RecordProperty("alarms", static_cast<int>(vcpu().loop_counters().alarms));
}

// The guest exits as often as it can, so that completions meet every moment around KVM_RUN.
TEST_F(VcpuLoopIo, GuestThatRingsWithoutEndLosesNoRead) {
  constexpr uint32_t kReads = 5000;
  start(VcpuMode::kLong64User, set_port(kDoorbell) + Code{0xee, 0xeb, 0xfd});  // 1: out; jmp 1b
  if (IsSkipped()) return;
  uint32_t submitted = 0;
  rung = [&] {
    if (reads_->in_flight() || submitted == kReads) return;
    ++submitted;
    reads_->submit();
  };
  vcpu().resume();
  spin_until([&] { return reads_->done_here() + reads_->wrong() == kReads; });
  EXPECT_EQ(reads_->wrong(), 0u);
  pause(vcpu());
  RecordProperty("missed", static_cast<int>(vcpu().loop_counters().missed));
}

TEST_F(VcpuLoopIo, ExitWithoutIoCostsNoSystemCallMoreThanWithoutALoop) {
  constexpr uint32_t kExits = 20'000;
  start(VcpuMode::kLong64User, set_port(kDoorbell) + Code{0xee, 0xeb, 0xfd});
  if (IsSkipped()) return;
  std::atomic<uint32_t> rings{0};
  loop::LoopCounters before;
  loop::LoopCounters after;
  rung = [&] {
    ++rings;
    if (rings == 100) before = vcpu_loop().counters();
    if (rings == kExits) after = vcpu_loop().counters();
  };
  vcpu().resume();
  spin_until([&] { return rings >= kExits; });
  pause(vcpu());
  EXPECT_EQ(after.turns, before.turns);
  EXPECT_EQ(after.enters, before.enters);
}

}  // namespace
}  // namespace skiff::vmm
