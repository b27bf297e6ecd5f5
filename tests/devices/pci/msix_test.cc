// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/msix.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "devices/core/bus.h"
#include "devices/core/msi.h"
#include "devices/testing/fake_msi.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kVectorControl = 12;

class MsixTest : public ::testing::Test {
 protected:
  void write(uint64_t offset, uint32_t size, uint64_t value) {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    msix_.write_table(offset, std::span(data).first(size));
  }
  uint64_t read(uint64_t offset, uint32_t size) {
    std::array<uint8_t, 8> data{};
    msix_.read_table(offset, std::span(data).first(size));
    return load_le(data);
  }
  uint64_t pending(uint64_t offset = 0, uint32_t size = 8) {
    std::array<uint8_t, 8> data{};
    msix_.read_pending(offset, std::span(data).first(size));
    return load_le(data);
  }
  void set_message(uint16_t vector, const MsiMessage& message) {
    write(uint64_t{vector} * 16, 8, message.address);
    write(uint64_t{vector} * 16 + 8, 4, message.data);
  }
  void mask(uint16_t vector, bool masked) {
    write(uint64_t{vector} * 16 + kVectorControl, 4, masked ? 1 : 0);
  }

  static constexpr MsiMessage kFirst{.address = 0xfee0'1000, .data = 0x31};
  static constexpr MsiMessage kSecond{.address = 0xfee0'2000, .data = 0x32};
  FakeMsiSink sink_;
  Msix msix_{sink_, 70, "test"};
};

TEST_F(MsixTest, AllVectorsAreMaskedAndDisabledAtFirst) {
  EXPECT_FALSE(msix_.is_enabled());
  EXPECT_EQ(read(kVectorControl, 4), 1u);
  EXPECT_EQ(read(69 * 16 + kVectorControl, 4), 1u);
  msix_.trigger(0);
  EXPECT_EQ(sink_.sent(), 0u);
  EXPECT_EQ(pending(), 0u);  // Disabled: nothing is remembered either.
}

TEST_F(MsixTest, OpenVectorSendsItsMessage) {
  msix_.set_control(true, false);
  set_message(3, kFirst);
  mask(3, false);
  msix_.trigger(3);
  msix_.trigger(3);
  EXPECT_EQ(sink_.sent(kFirst), 2u);
  EXPECT_EQ(sink_.vectors(), 1u);  // Only what is used gets a route.
}

TEST_F(MsixTest, TriggerWhileMaskedIsPendingAndSentOnceWhenUnmasked) {
  msix_.set_control(true, false);
  set_message(3, kFirst);
  msix_.trigger(3);
  msix_.trigger(3);
  EXPECT_EQ(pending(), 1u << 3);
  EXPECT_EQ(sink_.sent(), 0u);
  mask(3, false);
  EXPECT_EQ(pending(), 0u);
  EXPECT_EQ(sink_.sent(kFirst), 1u);
}

TEST_F(MsixTest, FunctionMaskHoldsAllVectorsBack) {
  msix_.set_control(true, true);
  set_message(0, kFirst);
  set_message(65, kSecond);
  mask(0, false);
  mask(65, false);
  msix_.trigger(0);
  msix_.trigger(65);
  EXPECT_EQ(sink_.sent(), 0u);
  EXPECT_EQ(pending(0), 1u);
  EXPECT_EQ(pending(8), 2u);
  msix_.set_control(true, false);
  EXPECT_EQ(sink_.sent(kFirst), 1u);
  EXPECT_EQ(sink_.sent(kSecond), 1u);
  EXPECT_EQ(pending(8), 0u);
}

TEST_F(MsixTest, NewMessageIsUsedFromTheNextInterruptOn) {
  msix_.set_control(true, false);
  set_message(1, kFirst);
  mask(1, false);
  msix_.trigger(1);
  mask(1, true);
  set_message(1, kSecond);
  mask(1, false);
  msix_.trigger(1);
  EXPECT_EQ(sink_.sent(kFirst), 1u);
  EXPECT_EQ(sink_.sent(kSecond), 1u);
  EXPECT_EQ(sink_.configurations(), 2u);
}

TEST_F(MsixTest, MaskingAndUnmaskingTheSameMessageDoesNotConfigureAgain) {
  msix_.set_control(true, false);
  set_message(1, kFirst);
  for (int i = 0; i < 5; ++i) {
    mask(1, false);
    mask(1, true);
  }
  EXPECT_EQ(sink_.configurations(), 1u);
}

TEST_F(MsixTest, RefusedVectorKeepsItsInterruptUntilItIsTaken) {
  msix_.set_control(true, false);
  set_message(1, kFirst);
  sink_.refuse_vectors(true);
  mask(1, false);
  msix_.trigger(1);
  EXPECT_EQ(pending(), 2u);
  sink_.refuse_vectors(false);
  sink_.refuse_messages(true);
  mask(1, false);
  EXPECT_EQ(pending(), 2u);
  sink_.refuse_messages(false);
  mask(1, false);
  EXPECT_EQ(sink_.sent(kFirst), 1u);
}

TEST_F(MsixTest, WritesOfAllSizesAndAlignmentsStayInTheTable) {
  msix_.set_control(true, false);
  for (uint64_t offset = 0; offset < msix_.table_size_bytes() + 16; ++offset)
    for (uint32_t size = 1; size <= 8; ++size) write(offset, size, ~uint64_t{0});
  write(~uint64_t{0} - 3, 8, 0);
  // Reserved bits stay zero: address 1:0, and all of vector control but the mask.
  EXPECT_EQ(read(16, 8), ~uint64_t{3});
  EXPECT_EQ(read(16 + 8, 8), 0x1'ffff'ffffu);
  EXPECT_EQ(read(~uint64_t{0} - 3, 8), 0u);
  EXPECT_EQ(read(70 * 16 - 4, 8), 1u);  // Half of it past the end.
  EXPECT_EQ(pending(~uint64_t{0} - 3), 0u);
}

TEST_F(MsixTest, MisalignedWriteUnmasksTheEntriesItTouches) {
  msix_.set_control(true, false);
  set_message(0, kFirst);
  set_message(1, kSecond);
  mask(1, false);
  // The last four bytes of entry 0 and the first four of entry 1.
  write(kVectorControl, 8, uint64_t{0xfee0'2000} << 32);
  msix_.trigger(0);
  msix_.trigger(1);
  EXPECT_EQ(sink_.sent(kFirst), 1u);
  EXPECT_EQ(sink_.sent(kSecond), 1u);
}

TEST_F(MsixTest, ResetMasksAndForgetsWhatWasPending) {
  msix_.set_control(true, false);
  set_message(0, kFirst);
  msix_.trigger(0);
  msix_.reset();
  EXPECT_FALSE(msix_.is_enabled());
  EXPECT_EQ(pending(), 0u);
  EXPECT_EQ(read(0, 8), 0u);
  EXPECT_EQ(read(kVectorControl, 4), 1u);
  msix_.set_control(true, false);
  mask(0, false);
  EXPECT_EQ(sink_.sent(), 0u);
}

// However triggers race with the mask, after the last unmask nothing is lost, and while it is
// masked nothing is sent but by those that had begun: one for each thread.
TEST_F(MsixTest, TriggersThatRaceWithTheMaskAreNeitherLostNorBegunWhileMasked) {
  msix_.set_control(true, false);
  set_message(0, kFirst);
  std::atomic<bool> ends{false};
  std::atomic<uint32_t> triggered{0};
  const auto trigger_all = [&] {
    while (!ends) {
      msix_.trigger(0);
      ++triggered;
    }
  };
  {
    loop::Thread one = loop::Thread::create({.name = "trigger-1"}, trigger_all).value();
    loop::Thread two = loop::Thread::create({.name = "trigger-2"}, trigger_all).value();
    for (uint32_t i = 0; i < 2000 || triggered < 1000; ++i) {
      mask(0, false);
      if (i % 16 == 0) set_message(0, i % 32 == 0 ? kSecond : kFirst);
      mask(0, true);
      const size_t sent = sink_.sent();
      pending();
      EXPECT_LE(sink_.sent(), sent + 2);
    }
    ends = true;
  }
  msix_.trigger(0);
  ASSERT_EQ(pending(), 1u);
  const size_t sent = sink_.sent();
  mask(0, false);
  EXPECT_EQ(sink_.sent(), sent + 1);
}

}  // namespace
}  // namespace skiff::devices
