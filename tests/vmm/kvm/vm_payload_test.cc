// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/doorbell.h"
#include "devices/core/guest_memory.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "tests/vmm/kvm/payload_test_guest.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_layout.h"
#include "vmm/memory_slots.h"

namespace skiff::vmm {
namespace {

using testing::HasSubstr;

// Writes 1 and then 2 to the MMIO address, then to the port.
Code ring_twice() {
  return set_ebx(kTestMmio) + Code{0xb8, 1, 0, 0, 0} + Code{0x89, 0x03} +  // mov [rbx], eax
         Code{0xb8, 2, 0, 0, 0} + Code{0x89, 0x03} + set_port(kTestPort) + out_al() + spin();
}

devices::DoorbellAddress doorbell(uint32_t size_bytes, std::optional<uint64_t> value) {
  return {.space = devices::DoorbellAddress::Space::kMmio,
          .address = kTestMmio,
          .size_bytes = size_bytes,
          .value = value};
}

class Doorbells : public testing::TestWithParam<VcpuMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, Doorbells,
                         testing::Values(VcpuMode::kLong64, VcpuMode::kLong64User));

TEST_P(Doorbells, RingWithoutAnExit) {
  PayloadTestGuest guest;
  auto notifier = loop::EventNotifier::create();
  ASSERT_TRUE(notifier);
  ASSERT_TRUE(guest.vm().attach(doorbell(0, std::nullopt), *notifier));
  const auto vcpu = guest.start(GetParam(), ring_twice());
  EXPECT_EQ(run_to_exit(*vcpu).kind, VcpuExitKind::kPio);
  EXPECT_TRUE(notifier->consume());
  EXPECT_FALSE(notifier->consume());
  guest.vm().detach(doorbell(0, std::nullopt), *notifier);
}

TEST_P(Doorbells, WithAValueRingForThatValueOnly) {
  PayloadTestGuest guest;
  auto notifier = loop::EventNotifier::create();
  ASSERT_TRUE(notifier);
  ASSERT_TRUE(guest.vm().attach(doorbell(4, 1), *notifier));
  const auto vcpu = guest.start(GetParam(), ring_twice());
  const VcpuExit exit = run_to_exit(*vcpu);
  ASSERT_EQ(exit.kind, VcpuExitKind::kMmio);
  EXPECT_EQ(exit.data[0], 2);
  EXPECT_TRUE(notifier->consume());
  guest.vm().detach(doorbell(4, 1), *notifier);
}

TEST_P(Doorbells, DetachedExitAgain) {
  PayloadTestGuest guest;
  auto notifier = loop::EventNotifier::create();
  ASSERT_TRUE(notifier);
  ASSERT_TRUE(guest.vm().attach(doorbell(4, std::nullopt), *notifier));
  guest.vm().detach(doorbell(4, std::nullopt), *notifier);
  const auto vcpu = guest.start(GetParam(), ring_twice());
  EXPECT_EQ(run_to_exit(*vcpu).kind, VcpuExitKind::kMmio);
  EXPECT_FALSE(notifier->consume());
}

TEST(VmPayload, TheSameDoorbellTwiceIsAnError) {
  PayloadTestGuest guest;
  auto notifier = loop::EventNotifier::create();
  ASSERT_TRUE(notifier);
  ASSERT_TRUE(guest.vm().attach(doorbell(4, std::nullopt), *notifier));
  EXPECT_FALSE(guest.vm().attach(doorbell(4, std::nullopt), *notifier));
  guest.vm().detach(doorbell(4, std::nullopt), *notifier);
}

TEST(VmPayload, VectorsRunOutAndComeBack) {
  PayloadTestGuest guest(2);
  auto first = guest.vm().create_vector();
  auto second = guest.vm().create_vector();
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  const auto third = guest.vm().create_vector();
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().kind(), loop::ErrorKind::kExhausted);
  ASSERT_TRUE((*first)->configure({.address = 0xfee0'0000, .data = 0x41}));
  first->reset();
  auto again = guest.vm().create_vector();
  ASSERT_TRUE(again);
  EXPECT_TRUE((*again)->configure({.address = 0xfee0'0000, .data = 0x42}));
}

TEST(VmPayload, VectorWithReservedAddressBitsIsRefusedAndHarmsNoOther) {
  PayloadTestGuest guest;
  auto bad = guest.vm().create_vector();
  auto good = guest.vm().create_vector();
  ASSERT_TRUE(bad);
  ASSERT_TRUE(good);
  const auto refused = (*bad)->configure({.address = 0x10'fee0'0000, .data = 0x41});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), loop::ErrorKind::kInvalidArgument);
  EXPECT_TRUE((*good)->configure({.address = 0xfee0'0000, .data = 0x41}));
}

TEST(VmPayload, VectorThatWasNeverConfiguredTriggersNothing) {
  PayloadTestGuest guest;
  auto vector = guest.vm().create_vector();
  ASSERT_TRUE(vector);
  (*vector)->trigger();
  EXPECT_GE((*vector)->trigger_fd(), 0);
}

TEST(VmPayload, ThereAreOnly24InterruptLines) {
  PayloadTestGuest guest;
  EXPECT_TRUE(guest.vm().create_irq_line(23));
  const auto line = guest.vm().create_irq_line(24);
  ASSERT_FALSE(line);
  EXPECT_THAT(line.error().message(), HasSubstr("0 to 23"));
}

TEST(VmPayload, InterruptControllersCanBeReset) {
  PayloadTestGuest guest;
  EXPECT_TRUE(guest.vm().reset_interrupt_controllers());
}

TEST(VmPayload, OverlappingMemoryIsRefused) {
  PayloadTestGuest guest;
  void* const page =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  const auto added =
      guest.vm().set_memory_slot({.id = 7, .guest_base = 0x1000, .size_bytes = 4096, .host = page});
  ASSERT_FALSE(added);
  EXPECT_THAT(added.error().message(), HasSubstr("0x1000"));
  ::munmap(page, 4096);
}

class Memory : public testing::Test {
 protected:
  void SetUp() override {
    auto system = KvmSystem::open();
    ASSERT_TRUE(system) << system.error().message();
    system_ = std::make_unique<KvmSystem>(*std::move(system));
    auto vm = Vm::create(*system_);
    ASSERT_TRUE(vm) << vm.error().message();
    vm_ = *std::move(vm);
  }
  std::string error_of(const MemoryOptions& options) {
    const auto memory = MemorySlots::create(*vm_, options);
    return memory ? "" : memory.error().message();
  }
  static uint64_t resident_bytes(const devices::GuestRegion& region) {
    std::vector<unsigned char> pages(region.size_bytes / 4096);
    EXPECT_EQ(::mincore(region.host, region.size_bytes, pages.data()), 0);
    return static_cast<uint64_t>(
               std::ranges::count_if(pages, [](auto p) { return (p & 1) != 0; })) *
           4096;
  }
  std::unique_ptr<KvmSystem> system_;
  std::unique_ptr<Vm> vm_;
};

TEST_F(Memory, BadSizesAreRefusedWithTheReason) {
  EXPECT_THAT(error_of({.size_bytes = 0}), HasSubstr("1 MiB or more"));
  EXPECT_THAT(error_of({.size_bytes = kMiB - 4096}), HasSubstr("1 MiB or more"));
  EXPECT_THAT(error_of({.size_bytes = 2 * kMiB + 1}), HasSubstr("whole pages"));
}

TEST_F(Memory, MoreThanTheHostHasIsRefused) {
  EXPECT_THAT(error_of({.size_bytes = uint64_t{1} << 46}), HasSubstr("more than this host has"));
  EXPECT_THAT(error_of({.size_bytes = ~uint64_t{4095}}), HasSubstr("more than this host has"));
}

TEST_F(Memory, NothingIsTouchedWithoutPrealloc) {
  const auto memory = MemorySlots::create(*vm_, {.size_bytes = 64 * kMiB, .huge_pages = false});
  ASSERT_TRUE(memory);
  const auto regions = (*memory)->memory().regions();
  ASSERT_EQ(regions.size(), 1u);
  EXPECT_EQ(resident_bytes(regions[0]), 0u);
}

TEST_F(Memory, PreallocMakesAllOfItResident) {
  const auto memory =
      MemorySlots::create(*vm_, {.size_bytes = 130 * kMiB, .prealloc = true, .huge_pages = false});
  ASSERT_TRUE(memory) << memory.error().message();
  EXPECT_EQ(resident_bytes((*memory)->memory().regions()[0]), 130 * kMiB);
}

TEST_F(Memory, Beyond3GiBItGoesOnAt4GiB) {
  struct sysinfo info{};
  ASSERT_EQ(::sysinfo(&info), 0);
  if (uint64_t{info.totalram} * info.mem_unit < 3 * kGiB + 16 * kMiB)
    GTEST_SKIP() << "The host has too little memory for a guest of more than 3 GiB";
  const auto memory = MemorySlots::create(*vm_, {.size_bytes = 3 * kGiB + 16 * kMiB});
  ASSERT_TRUE(memory) << memory.error().message();
  const auto regions = (*memory)->memory().regions();
  ASSERT_EQ(regions.size(), 2u);
  EXPECT_EQ(regions[0].size_bytes, 3 * kGiB);
  EXPECT_EQ(regions[1].base.value, 4 * kGiB);
  EXPECT_EQ(regions[1].size_bytes, 16 * kMiB);
}

}  // namespace
}  // namespace skiff::vmm
