// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/bus.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "tests/vmm/kvm/payload_test_guest.h"
#include "tests/vmm/vcpu_thread_fixture.h"
#include "vmm/kvm/kvm_statistics.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {
namespace {

using testing::HasSubstr;

// mov al, bl; out; then out of the way.
Code answer_with_index() {
  return Code{0x88, 0xd8} + set_port(kTestPort) + out_al() + halt_for_ever();
}
// 1: in eax, dx; jmp 1b
Code read_for_ever() { return set_port(kTestPort) + Code{0xed, 0xeb, 0xfd}; }

TEST_F(VcpuThreadPayload, SixtyFourVcpusStartAndEachAnswersOnce) {
  create(64, VcpuMode::kLong64, answer_with_index());
  for (const auto& vcpu : vcpus_) vcpu->resume();
  turn_until([&] { return port_.written().size() == 64; });
  const std::set<uint64_t> answers(port_.written().begin(), port_.written().end());
  EXPECT_EQ(answers.size(), 64u);
  EXPECT_EQ(*answers.rbegin(), 63u);
  EXPECT_TRUE(failures_.empty());
}

TEST_F(VcpuThreadPayload, IsMadePausedAndRunsOnlyWhenResumed) {
  create(1, VcpuMode::kLong64, answer_with_index());
  pause(*vcpus_[0]);
  EXPECT_TRUE(port_.written().empty());
  vcpus_[0]->resume();
  turn_until([&] { return !port_.written().empty(); });
}

TEST_F(VcpuThreadPayload, PausedUnderLoadItHasCompletedItsAccessAndMovesNoMore) {
  create(1, VcpuMode::kLong64User, read_for_ever());
  for (int round = 0; round < 100; ++round) {
    const uint64_t before = port_.reads();
    vcpus_[0]->resume();
    turn_until([&] { return port_.reads() > before + static_cast<uint64_t>(round % 5); });
    pause(*vcpus_[0]);
    const uint64_t answered = port_.reads();
    uint64_t rax = 0;
    ASSERT_TRUE(call(*vcpus_[0], [&](Vcpu& vcpu) -> loop::Result<void> {
      const auto registers = vcpu.registers();
      if (!registers) return registers.error();
      rax = registers->rax;
      return {};
    }));
    EXPECT_EQ(rax, answered);
    EXPECT_EQ(port_.reads(), answered);
  }
}

TEST_F(VcpuThreadPayload, ManyPausedAtOnceAllComeToRest) {
  create(16, VcpuMode::kLong64, read_for_ever());
  for (const auto& vcpu : vcpus_) vcpu->resume();
  turn_until([&] { return port_.reads() > 100; });
  size_t paused = 0;
  for (const auto& vcpu : vcpus_) vcpu->pause([&] { ++paused; });
  turn_until([&] { return paused == vcpus_.size(); });
  const uint64_t reads = port_.reads();
  for (const auto& vcpu : vcpus_) pause(*vcpu);
  EXPECT_EQ(port_.reads(), reads);
}

TEST_F(VcpuThreadPayload, GuestThatNeverExitsIsKickedOutWithinMilliseconds) {
  create(1, VcpuMode::kLong64User, spin());
  using Clock = std::chrono::steady_clock;
  Clock::duration fastest = Clock::duration::max();
  for (int round = 0; round < 20; ++round) {
    vcpus_[0]->resume();
    const auto start = Clock::now();
    pause(*vcpus_[0]);
    fastest = std::min(fastest, Clock::now() - start);
  }
  RecordProperty("fastest_kick_us", static_cast<int>(fastest / std::chrono::microseconds(1)));
  EXPECT_LT(fastest, std::chrono::milliseconds(20));
}

TEST_F(VcpuThreadPayload, HaltedVcpuCanBePausedAndStopped) {
  create(1, VcpuMode::kLong64, answer_with_index());
  vcpus_[0]->resume();
  turn_until([&] { return !port_.written().empty(); });
  pause(*vcpus_[0]);
  vcpus_[0]->resume();
  bool ended = false;
  vcpus_[0]->stop([&] { ended = true; });
  turn_until([&] { return ended; });
}

TEST_F(VcpuThreadPayload, StringWriteReachesThePortByteByByteInOrder) {
  const Code data = {10, 11, 12, 13, 14};
  create(1, VcpuMode::kLong64User,
         set_port(kTestPort) + Code{0xbe, 0, 0, 3, 0} +  // mov esi, 0x30000
             Code{0xb9, 5, 0, 0, 0} +                    // mov ecx, 5
             Code{0xf3, 0x6e} + spin());                 // rep outsb
  ASSERT_TRUE(write_payload_code(guest_.memory(), data, 0x30000));
  vcpus_[0]->resume();
  turn_until([&] { return port_.written().size() == 5; });
  EXPECT_EQ(port_.written(), (std::vector<uint64_t>{10, 11, 12, 13, 14}));
}

TEST_F(VcpuThreadPayload, TripleFaultIsReportedOnceAndTheVcpuCanStartAnew) {
  create(1, VcpuMode::kLong64, {0x0f, 0x0b});  // ud2
  vcpus_[0]->resume();
  turn_until([&] { return !failures_.empty(); });
  EXPECT_TRUE(failures_[0].guest_crashed);
  EXPECT_FALSE(failures_[0].emulation_failed);
  EXPECT_THAT(failures_[0].text, HasSubstr("vCPU 0: triple fault"));
  EXPECT_THAT(failures_[0].text, HasSubstr("RIP="));

  vcpus_[0]->resume();  // Without a new start it stays where it is.
  pause(*vcpus_[0]);
  EXPECT_EQ(failures_.size(), 1u);
  ASSERT_TRUE(write_payload_code(guest_.memory(), answer_with_index()));
  ASSERT_TRUE(call(
      *vcpus_[0], [](Vcpu& vcpu) { return vcpu.start_at(payload_boot_state(VcpuMode::kLong64)); }));
  vcpus_[0]->resume();
  turn_until([&] { return !port_.written().empty(); });
}

TEST_F(VcpuThreadPayload, ExitsAreCountedByKind) {
  create(1, VcpuMode::kLong64,
         set_ebx(kTestMmio) + Code{0x8b, 0x03} + answer_with_index());  // mov eax, [rbx]
  vcpus_[0]->resume();
  turn_until([&] { return !port_.written().empty(); });
  pause(*vcpus_[0]);
  const auto& counters = vcpus_[0]->counters();
  EXPECT_EQ(counters[static_cast<size_t>(VcpuExitKind::kPio)].load(), 1u);
  EXPECT_EQ(counters[static_cast<size_t>(VcpuExitKind::kMmio)].load(), 1u);
  EXPECT_GE(counters[static_cast<size_t>(VcpuExitKind::kInterrupted)].load(), 1u);
  const auto statistics = vcpus_[0]->kernel_statistics();
  if (!statistics) {
    EXPECT_EQ(statistics.error().kind(), loop::ErrorKind::kUnsupported);
    return;
  }
  EXPECT_THAT(*statistics, testing::Contains(testing::Field(&KvmStatistic::name, "exits")));
}

TEST_F(VcpuThreadPayload, FailedSetUpIsWhatWaitReadySays) {
  VcpuThread::Options options;
  options.set_up = [](Vcpu&) -> loop::Result<void> {
    return loop::Error(loop::ErrorKind::kUnsupported, "No such feature");
  };
  auto vcpu = VcpuThread::create(surroundings(), std::move(options));
  ASSERT_TRUE(vcpu);
  const auto ready = (*vcpu)->wait_ready();
  ASSERT_FALSE(ready);
  EXPECT_THAT(ready.error().message(), HasSubstr("No such feature"));
  bool paused = false;
  (*vcpu)->pause([&] { paused = true; });
  turn_until([&] { return paused; });
}

TEST_F(VcpuThreadPayload, CallAfterStopIsCancelled) {
  create(1, VcpuMode::kLong64, answer_with_index());
  vcpus_[0]->stop({});
  const auto result = call(*vcpus_[0], [](Vcpu&) { return loop::Result<void>(); });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), loop::ErrorKind::kCancelled);
}

TEST_F(VcpuThreadPayload, PinnedToACpuTheHostLacksIsRefused) {
  VcpuThread::Options options;
  options.cpus.add(loop::CpuSet::kMaxCpus - 1);
  EXPECT_FALSE(VcpuThread::create(surroundings(), std::move(options)));
}

}  // namespace
}  // namespace skiff::vmm
