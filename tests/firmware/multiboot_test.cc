// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/multiboot.h"

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

class MultibootTest : public GuestFixture {};

TEST_F(MultibootTest, ElfKernelStartsWithMagicAndInformation) {
  const auto state = load(make_elf_multiboot());
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->mode, BootState::Mode::kProtected32);
  EXPECT_EQ(state->rip, 0x100010u);
  EXPECT_EQ(state->rax, 0x2badb002u);
  EXPECT_EQ(state->rbx, kBootInfoAddress.value);
}

TEST_F(MultibootTest, InformationHasMemoryMapCommandLineAndModules) {
  const Bytes module(5000, std::byte{0x22});
  options_.kernel_name = "kernel.elf";
  options_.modules = {{.command_line = "mod arg", .bytes = module}};
  const auto state = load(make_elf_multiboot());
  ASSERT_TRUE(state) << state.error().message();
  const uint64_t info = state->rbx;
  EXPECT_EQ(at<uint32_t>(info), 0x24du);
  EXPECT_EQ(at<uint32_t>(info + 4), 0x9fc00u >> 10);
  EXPECT_EQ(at<uint32_t>(info + 8), (kMemoryBytes - 0x100000) >> 10);
  EXPECT_EQ(text_at(at<uint32_t>(info + 16)), "kernel.elf console=ttyS0");
  EXPECT_EQ(text_at(at<uint32_t>(info + 64)), "skiff");
  ASSERT_EQ(at<uint32_t>(info + 20), 1u);
  const auto list = at<uint32_t>(info + 24);
  EXPECT_EQ(at<uint32_t>(list) % kPageBytes, 0u);
  EXPECT_EQ(at<uint32_t>(list + 4) - at<uint32_t>(list), 5000u);
  EXPECT_EQ(bytes_at(at<uint32_t>(list), 5000), module);
  EXPECT_EQ(text_at(at<uint32_t>(list + 8)), "mod arg");
  EXPECT_EQ(at<uint32_t>(info + 44), 3 * 24u);
  const auto map = at<uint32_t>(info + 48);
  EXPECT_EQ(at<uint32_t>(map), 20u);
  EXPECT_EQ(at<uint64_t>(map + 12), 0x9fc00u);
  EXPECT_EQ(at<uint32_t>(map + 20), 1u);
}

TEST_F(MultibootTest, FlatFileIsLoadedByItsAddressFields) {
  const auto state = load(make_flat_multiboot());
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->rip, 0x100040u);
  EXPECT_EQ(at<uint32_t>(0x100010), 0x1badb002u);
  EXPECT_EQ(bytes_at(0x100100, 0x700), Bytes(0x700));
  EXPECT_EQ(at<uint8_t>(0x100800), 0xa5);
}

TEST_F(MultibootTest, FlatFileMayBeginBehindItsFirstBytes) {
  const auto state = load(make_flat_multiboot({.header = 0x100000, .load_end = 0x100080}));
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(at<uint32_t>(0x100000), 0x1badb002u);
  EXPECT_EQ(at<uint8_t>(0x10007f), 0x90);
  EXPECT_EQ(at<uint8_t>(0x100080), 0);
}

TEST_F(MultibootTest, ImpossibleAddressFieldsAreRefused) {
  EXPECT_THAT(error_of(make_flat_multiboot({.header = 0xfffff})), HasSubstr("go together"));
  EXPECT_THAT(error_of(make_flat_multiboot({.header = 0x100011})), HasSubstr("go together"));
  EXPECT_THAT(error_of(make_flat_multiboot({.load_end = 0x100000})), HasSubstr("load end"));
  EXPECT_THAT(error_of(make_flat_multiboot({.load_end = 0x100101})), HasSubstr("cut off"));
  EXPECT_THAT(error_of(make_flat_multiboot({.bss_end = 0x1000ff})), HasSubstr("bss end"));
  EXPECT_THAT(error_of(make_flat_multiboot({.bss_end = 0xffffffff})), HasSubstr("does not fit"));
  EXPECT_THAT(error_of(make_flat_multiboot({.entry = 0x100800})), HasSubstr("entry point"));
  EXPECT_THAT(error_of(make_flat_multiboot({.entry = 0xfffff})), HasSubstr("entry point"));
}

TEST_F(MultibootTest, OverlapWithTheInformationIsRefused) {
  EXPECT_THAT(error_of(make_flat_multiboot(
                  {.header = 0x2010, .load = 0x2000, .bss_end = 0, .entry = 0x2000})),
              HasSubstr("the multiboot information (0x2000"));
}

TEST_F(MultibootTest, UnknownRequirementIsRefused) {
  EXPECT_THAT(error_of(make_flat_multiboot({}, 1U << 16 | 1U << 5)), HasSubstr("flags 0x20"));
}

TEST_F(MultibootTest, HeaderMustLieInTheFirst8KibWithARightChecksum) {
  Bytes file = make_flat_multiboot();
  EXPECT_TRUE(find_multiboot_header(file));
  Bytes late(8192 - 8);
  late.insert(late.end(), file.begin() + 16, file.end());
  EXPECT_FALSE(find_multiboot_header(late));
  Bytes last(8192 - 12);
  last.insert(last.end(), file.begin() + 16, file.end());
  EXPECT_TRUE(find_multiboot_header(last));
  file[24] ^= std::byte{1};
  EXPECT_FALSE(find_multiboot_header(file));
}

TEST_F(MultibootTest, HeaderCutOffInItsAddressFieldsIsRefused) {
  Bytes file = make_flat_multiboot();
  file.resize(40);
  EXPECT_THAT(error_of(file), HasSubstr("address fields: was it cut off?"));
}

TEST_F(MultibootTest, SixtyFourBitElfNeedsAddressFields) {
  Bytes content = make_multiboot_header(0);
  content.resize(256);
  const Bytes file =
      make_elf({.segments = {{.address = 0x100000, .content = content, .memory_bytes = 256}}});
  options_.protocol = Protocol::kMultiboot;
  EXPECT_THAT(error_of(file), HasSubstr("64-bit ELF file with a multiboot header"));
}

TEST_F(MultibootTest, ForcedOnAFileWithoutHeaderIsRefused) {
  options_.protocol = Protocol::kMultiboot;
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("no multiboot header"));
  EXPECT_THAT(error_of(make_multiboot_header(0)), HasSubstr("not ELF"));
}

}  // namespace
}  // namespace skiff::firmware
