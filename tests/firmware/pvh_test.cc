// SPDX-License-Identifier: GPL-2.0-or-later
#include <elf.h>
#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>

#include "firmware/boot.h"
#include "firmware/layout.h"
#include "tests/firmware/guest_fixture.h"
#include "tests/firmware/kernel_images.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

class PvhTest : public GuestFixture {
 protected:
  const Bytes kernel_ = make_elf({.pvh_entry = 0x100020});
};

TEST_F(PvhTest, IsEnteredInFlatProtectedMode) {
  const auto state = load(kernel_);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->rip, 0x100020u);
  EXPECT_EQ(state->rbx, kBootInfoAddress.value);
  EXPECT_EQ(state->cr0, 0x11u);
  EXPECT_EQ(state->cr4, 0u);
  EXPECT_EQ(state->efer, 0u);
  EXPECT_TRUE(state->code.is_32_bit);
  EXPECT_FALSE(state->code.is_long_mode);
  EXPECT_EQ(at<uint64_t>(state->gdt.value + 0x10), 0x00cf9b000000ffffu);
}

TEST_F(PvhTest, StartInformationNamesEverything) {
  const Bytes initrd(100, std::byte{0x11});
  const Bytes module(200, std::byte{0x22});
  options_.initrd = {initrd};
  options_.modules = {{.command_line = "second", .bytes = module}};
  const auto state = load(kernel_);
  ASSERT_TRUE(state) << state.error().message();
  const uint64_t info = state->rbx;
  EXPECT_EQ(at<uint32_t>(info), 0x336ec578u);
  EXPECT_EQ(at<uint32_t>(info + 4), 1u);
  EXPECT_EQ(at<uint32_t>(info + 12), 2u);
  EXPECT_EQ(text_at(at<uint64_t>(info + 24)), "console=ttyS0");
  EXPECT_EQ(at<uint64_t>(info + 32), 0xe0000u);
  EXPECT_EQ(at<uint32_t>(info + 48), 3u);
  const auto map = at<uint64_t>(info + 40);
  EXPECT_EQ(at<uint64_t>(map + 8), 0x9fc00u);
  EXPECT_EQ(at<uint64_t>(map + 24), 0x9fc00u);
  EXPECT_EQ(at<uint32_t>(map + 24 + 16), 2u);
  const auto list = at<uint64_t>(info + 16);
  EXPECT_EQ(bytes_at(at<uint64_t>(list), 100), initrd);
  EXPECT_EQ(at<uint64_t>(list + 8), 100u);
  EXPECT_EQ(bytes_at(at<uint64_t>(list + 32), 200), module);
  EXPECT_EQ(text_at(at<uint64_t>(list + 32 + 16)), "second");
}

TEST_F(PvhTest, ThirtyTwoBitFileWorksAsWell) {
  const auto state = load(make_elf({.is_64_bit = false, .machine = EM_386, .pvh_entry = 0x100020}));
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->rip, 0x100020u);
}

TEST_F(PvhTest, EntryPointMustBeLoaded) {
  EXPECT_THAT(error_of(make_elf({.pvh_entry = 0x100020ffffffff})),
              HasSubstr("in none of its segments"));
}

TEST_F(PvhTest, ForcedOnAFileWithoutTheNoteIsRefused) {
  options_.protocol = Protocol::kPvh;
  EXPECT_THAT(error_of(make_elf({})), HasSubstr("CONFIG_PVH"));
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("ELF file, this one is not"));
}

TEST_F(PvhTest, TooManyModulesAreRefused) {
  const Bytes module(1);
  options_.modules.assign(700, {.command_line = "", .bytes = module});
  EXPECT_THAT(error_of(kernel_), HasSubstr("700 modules"));
}

TEST_F(PvhTest, EmptyModuleIsRefusedByName) {
  options_.modules = {{.command_line = "nothing", .bytes = {}}};
  EXPECT_THAT(error_of(kernel_), HasSubstr("The module 'nothing' is empty"));
}

}  // namespace
}  // namespace skiff::firmware
