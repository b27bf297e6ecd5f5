// SPDX-License-Identifier: GPL-2.0-or-later
// What a vCPU's own loop does for the thread: completions, messages and timers end KVM_RUN, and a
// vCPU out of the guest still turns.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "loop/clock.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "tests/vmm/kvm/payload_test_guest.h"
#include "tests/vmm/vcpu_loop_fixture.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {
namespace {

constexpr uint32_t kReads = 2000;

TEST_F(VcpuLoopPayload, WithoutTheOptionThereIsNone) {
  create(1, VcpuMode::kLong64, halt_for_ever());
  EXPECT_EQ(vcpu().loop(), nullptr);
}

TEST_F(VcpuLoopPayload, ReadsEndOnTheVcpusThreadWhileItsGuestSpins) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  ReadChain reads(vcpu_loop(), file_);
  vcpu().resume();
  reads.start(kReads);
  spin_until([&] { return reads.done_here() + reads.wrong() == kReads; });
  EXPECT_EQ(reads.wrong(), 0u);
  // A spinning guest leaves KVM_RUN for nothing else.
  EXPECT_GE(vcpu().loop_counters().completions + vcpu().loop_counters().missed, kReads * 9 / 10);
  RecordProperty("missed", static_cast<int>(vcpu().loop_counters().missed));
}

TEST_F(VcpuLoopPayload, ReadsEndOnTheVcpusThreadWhileItsGuestIsHalted) {
  create_with_loop(VcpuMode::kLong64, halt_for_ever());
  if (IsSkipped()) return;
  ReadChain reads(vcpu_loop(), file_);
  vcpu().resume();
  reads.start(kReads);
  spin_until([&] { return reads.done_here() + reads.wrong() == kReads; });
  EXPECT_EQ(reads.wrong(), 0u);
  EXPECT_GE(vcpu().loop_counters().completions + vcpu().loop_counters().missed, kReads * 9 / 10);
}

TEST_F(VcpuLoopPayload, ReadsEndWhileTheVcpuIsPausedWithoutAnybodysHelp) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  ReadChain reads(vcpu_loop(), file_);
  reads.start(kReads / 2);  // Not started yet.
  spin_until([&] { return reads.done_here() + reads.wrong() == kReads / 2; });
  vcpu().resume();
  pause(vcpu());
  const uint64_t before = interruptions();
  reads.start(kReads / 2);
  spin_until([&] { return reads.done_here() + reads.wrong() == kReads; });
  EXPECT_EQ(reads.wrong(), 0u);
  EXPECT_EQ(interruptions(), before) << "the guest was entered";
}

TEST_F(VcpuLoopPayload, ReadsGoOnThroughPausesAndResumes) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  ReadChain reads(vcpu_loop(), file_);
  reads.start(kReads);
  int rounds = 0;
  while (reads.done_here() + reads.wrong() < kReads) {
    vcpu().resume();
    if (++rounds % 2 == 0) on_vcpu([] {});
    pause(vcpu());
  }
  EXPECT_EQ(reads.wrong(), 0u);
  EXPECT_GT(rounds, 10);
}

TEST_F(VcpuLoopPayload, StoppedVcpusLoopGoesOnUntilItsThreadEnds) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  ReadChain reads(vcpu_loop(), file_);
  vcpu().resume();
  reads.start(kReads / 4);
  bool ended = false;
  vcpu().stop([&] { ended = true; });
  turn_until([&] { return ended; });
  const uint64_t exits = interruptions();
  spin_until([&] { return reads.done_here() + reads.wrong() == kReads / 4; });
  EXPECT_EQ(reads.wrong(), 0u);
  on_vcpu([] {});
  vcpu().resume();  // Too late.
  EXPECT_EQ(interruptions(), exits);
  EXPECT_EQ(call(vcpu(), [](Vcpu&) { return loop::Result<void>(); }).error().kind(),
            loop::ErrorKind::kCancelled);
}

TEST_F(VcpuLoopPayload, MessagesReachASpinningGuestsVcpu) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  vcpu().resume();
  for (int round = 0; round < 2000; ++round) on_vcpu([] {});
}

TEST_F(VcpuLoopPayload, MessagesReachAHaltedVcpu) {
  create_with_loop(VcpuMode::kLong64, halt_for_ever());
  if (IsSkipped()) return;
  vcpu().resume();
  for (int round = 0; round < 2000; ++round) on_vcpu([] {});
}

// The guest leaves by itself all the time, so that messages meet every moment around KVM_RUN.
TEST_F(VcpuLoopPayload, MessagesReachAVcpuThatComesAndGoes) {
  create_with_loop(VcpuMode::kLong64User, set_port(kTestPort) + Code{0xed, 0xeb, 0xfd});
  if (IsSkipped()) return;
  vcpu().resume();
  for (int round = 0; round < 3000; ++round) on_vcpu([] {});
  pause(vcpu());
}

TEST_F(VcpuLoopPayload, TimersRunWhileTheGuestSpins) {
  create_with_loop(VcpuMode::kLong64User, spin());
  if (IsSkipped()) return;
  constexpr int kRounds = 200;
  std::atomic<int> runs{0};
  std::unique_ptr<loop::Timer> timer;
  vcpu().resume();
  on_vcpu([&] {
    timer = std::make_unique<loop::Timer>(vcpu_loop(), loop::Priority::kRealTime, [&] {
      if (++runs < kRounds) timer->arm_after(100'000);
    });
    timer->arm_after(100'000);
  });
  spin_until([&] { return runs == kRounds; });
  EXPECT_GE(vcpu().loop_counters().alarms, uint64_t{kRounds} / 2);
  on_vcpu([&] { timer.reset(); });
}

// The hook holds the thread between its last look and KVM_RUN until the read is complete.
class MissedWake : public VcpuLoopPayload {
 protected:
  void run(const Code& code, VcpuMode mode, int64_t hold_ns) {
    VcpuThread::Options options;
    options.before_entry = [this, hold_ns](loop::EventLoop& own) {
      if (!armed_.exchange(false)) return;
      while (own.is_idle()) {
      }
      missed_at_ns_ = clock_.now_ns();
      while (clock_.now_ns() < missed_at_ns_ + hold_ns) {
      }
    };
    create_with_loop(mode, code, options);
    if (IsSkipped()) return;
    ReadChain reads(vcpu_loop(), file_);
    int64_t worst_ns = 0;
    reads.on_read = [&] { worst_ns = std::max(worst_ns, clock_.now_ns() - missed_at_ns_); };
    vcpu().resume();
    for (uint32_t round = 1; round <= kRounds; ++round) {
      vcpu_loop().post([&] {
        reads.submit();
        armed_ = true;
      });
      spin_until([&] { return reads.done_here() + reads.wrong() == round; });
    }
    EXPECT_EQ(reads.wrong(), 0u);
    EXPECT_GE(vcpu().loop_counters().missed, kRounds * 9 / 10);
    RecordProperty("worst_delay_us", static_cast<int>(worst_ns / 1000));
  }

  static constexpr uint32_t kRounds = 100;
  loop::MonotonicClock clock_;
  std::atomic<bool> armed_{false};
  int64_t missed_at_ns_ = 0;
};

TEST_F(MissedWake, CompletionJustBeforeASpinningGuestIsFoundByTheGuard) {
  run(spin(), VcpuMode::kLong64User, 0);
}

TEST_F(MissedWake, CompletionJustBeforeAHaltedGuestIsFoundByTheGuard) {
  run(halt_for_ever(), VcpuMode::kLong64, 0);
}

// As if the thread had lost its CPU there: the guard's alarm comes too early as well.
TEST_F(MissedWake, GuardThatComesJustBeforeTheGuestIsNotLost) {
  run(spin(), VcpuMode::kLong64User, 3'000'000);
}

TEST_F(VcpuLoopPayload, CpuOfTheThreadIsPublished) {
  VcpuThread::Options options;
  const auto allowed = loop::CpuSet::of_process();
  ASSERT_TRUE(allowed);
  uint32_t cpu = 0;
  while (!allowed->contains(cpu)) ++cpu;
  options.cpus.add(cpu);
  create(1, VcpuMode::kLong64, halt_for_ever(), options);
  vcpu().resume();
  pause(vcpu());
  EXPECT_EQ(vcpu().host_cpu(), cpu);
}

}  // namespace
}  // namespace skiff::vmm
