// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/boot.h"

#include <gmock/gmock.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <ios>
#include <iterator>
#include <string>

#include "devices/core/guest_memory.h"
#include "firmware/layout.h"
#include "firmware/memory_map.h"
#include "tests/firmware/guest_fixture.h"
#include "tests/firmware/kernel_images.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

class BootTest : public GuestFixture {
 protected:
  std::string error_of_text(std::string text) {
    text.resize(4096);
    return error_of(to_bytes(text));
  }
};

TEST_F(BootTest, FilesThatPeopleTakeForKernelsAreNamed) {
  std::string arm64(64, '\0');
  arm64.replace(0, 2, "MZ").replace(56, 4, "ARM\x64");
  EXPECT_THAT(error_of_text(arm64), HasSubstr("arm64 Image"));
  EXPECT_THAT(error_of_text("\x1f\x8b\x08"), HasSubstr("gzip -d"));
  EXPECT_THAT(error_of_text("\x28\xb5\x2f\xfd"), HasSubstr("zstd -d"));
  EXPECT_THAT(error_of_text(std::string("\xfd\x37zXZ\0", 6)), HasSubstr("xz -d"));
  EXPECT_THAT(error_of_text("\x02\x21\x4c\x18"), HasSubstr("lz4 -d"));
  EXPECT_THAT(error_of_text("070701"), HasSubstr("is it the initrd?"));
  EXPECT_THAT(error_of_text("!<arch>\n"), HasSubstr("Debian package"));
  EXPECT_THAT(error_of_text("MZ"), HasSubstr("EFI"));
  EXPECT_THAT(error_of_text("#!/bin/sh"), HasSubstr("a script"));
  EXPECT_THAT(error_of_text("hello"), HasSubstr("neither a bzImage"));
}

TEST_F(BootTest, EmptyAndTinyFilesAreRefused) {
  EXPECT_THAT(error_of({}), HasSubstr("empty"));
  for (size_t size = 1; size < 64; ++size) EXPECT_NE(error_of(Bytes(size)), "");
}

TEST_F(BootTest, EveryMessageIsOneLine) {
  for (const std::string& message :
       {error_of({}), error_of_text("\x1f\x8b"), error_of(make_elf({.entry = 0}))}) {
    EXPECT_NE(message, "");
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST_F(BootTest, MemoryTooSmallForOurOwnTablesIsSaid) {
  const devices::GuestMemory tiny({{.base = {0}, .host = ram_.data(), .size_bytes = 0x8000}});
  const auto state =
      load_kernel(make_elf({.entry = 0x2000, .segments = {{.address = 0x2000}}}), options_, tiny);
  ASSERT_FALSE(state);
  EXPECT_THAT(state.error().message(), HasSubstr("does not fit in the guest's 32768 bytes"));
}

TEST_F(BootTest, ReservedRangesOfTheMemoryMapAreLeftAlone) {
  const MemoryRange reserved{.base = {0x100100}, .size_bytes = 1};
  options_.memory_map = make_memory_map(memory_, {&reserved, 1});
  EXPECT_THAT(error_of(make_elf({})), HasSubstr("a reserved range of the memory map"));
}

TEST_F(BootTest, MemoryMapWithTooManyEntriesIsRefused) {
  options_.memory_map.assign(129, {.base = {0x200000}, .size_bytes = 1});
  EXPECT_THAT(error_of(make_elf({})), HasSubstr("129 entries"));
}

// Real kernels, where there are some: SKIFF_IMAGES names a directory with vmlinuz and vmlinux.
class RealKernelTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const char* directory = std::getenv("SKIFF_IMAGES");
    if (directory == nullptr) GTEST_SKIP() << "SKIFF_IMAGES is not set";
    std::ifstream file(std::string(directory) + "/" + GetParam(), std::ios::binary);
    if (!file) GTEST_SKIP() << directory << " has no " << GetParam();
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    kernel_ = to_bytes(text);
    ram_ = static_cast<std::byte*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ASSERT_NE(ram_, MAP_FAILED);
    memory_ = devices::GuestMemory({{.base = {0}, .host = ram_, .size_bytes = kBytes}});
    options_.memory_map = make_memory_map(memory_, {});
  }
  void TearDown() override {
    if (ram_ != nullptr) munmap(ram_, kBytes);
  }

  static constexpr uint64_t kBytes = 256 << 20;
  Bytes kernel_;
  std::byte* ram_ = nullptr;
  devices::GuestMemory memory_;
  BootOptions options_;
};

TEST_P(RealKernelTest, LoadsByThe64BitProtocol) {
  const auto state = load_kernel(kernel_, options_, memory_);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->mode, BootState::Mode::kLong64);
  EXPECT_EQ(state->rsi, kZeroPageAddress.value);
}

INSTANTIATE_TEST_SUITE_P(Files, RealKernelTest, ::testing::Values("vmlinuz", "vmlinux"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace skiff::firmware
