// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/cpio.h"

#include <gmock/gmock.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <ios>
#include <string>
#include <vector>

#include "tests/firmware/kernel_images.h"
#include "tests/temp_dir.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(CpioWriterTest, FileIsPaddedAndTheArchiveIsWholeBlocks) {
  CpioWriter writer;
  ASSERT_TRUE(writer.add_file("init", 0755, to_bytes("hello")));
  const std::string archive = text_of(writer.finish());
  EXPECT_EQ(archive.size(), 512u);
  EXPECT_EQ(archive.substr(0, 110),
            "07070100000001000081ed00000000000000000000000100000000"
            "00000005000000000000000000000000000000000000000500000000");
  EXPECT_EQ(archive.substr(110, 6), std::string("init\0\0", 6));
  EXPECT_EQ(archive.substr(116, 8), std::string("hello\0\0\0", 8));
  EXPECT_EQ(archive.substr(124, 6), "070701");
  EXPECT_THAT(archive, HasSubstr("TRAILER!!!"));
}

TEST(CpioWriterTest, EmptyArchiveIsATrailer) {
  CpioWriter writer;
  EXPECT_EQ(writer.finish().size(), 512u);
}

TEST(CpioWriterTest, PathsThatCannotBeAreRefused) {
  CpioWriter writer;
  EXPECT_FALSE(writer.add_directory("", 0755));
  EXPECT_FALSE(writer.add_directory("/dev", 0755));
  EXPECT_FALSE(writer.add_directory("TRAILER!!!", 0755));
  EXPECT_FALSE(writer.add_directory(std::string("a\0b", 3), 0755));
  EXPECT_FALSE(writer.add_directory(std::string(4096, 'a'), 0755));
  EXPECT_TRUE(writer.add_directory(std::string(4095, 'a'), 0755));
}

TEST(CpioWriterTest, CpioListsWhatWasWritten) {
  if (std::system("command -v cpio >/dev/null") != 0) GTEST_SKIP() << "cpio is not installed";
  CpioWriter writer;
  ASSERT_TRUE(writer.add_directory("dev", 0755));
  ASSERT_TRUE(writer.add_device("dev/console", 0600, {CpioDevice::kCharacter, 5, 1}));
  ASSERT_TRUE(writer.add_device("dev/vda", 0660, {CpioDevice::kBlock, 254, 0}));
  ASSERT_TRUE(writer.add_file("init", 0755, to_bytes("#!/bin/sh\n")));
  ASSERT_TRUE(writer.add_file("empty", 0644, {}));
  const TempDir directory;
  const std::string path = directory.path("archive");
  std::ofstream(path, std::ios::binary) << text_of(writer.finish());
  FILE* pipe = popen(("cpio -tv --quiet < " + path + " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string listing;
  std::array<char, 256> line;
  while (fgets(line.data(), line.size(), pipe) != nullptr) listing += line.data();
  EXPECT_EQ(pclose(pipe), 0) << listing;
  EXPECT_THAT(listing, ::testing::ContainsRegex("drwxr-xr-x .* dev\n"));
  EXPECT_THAT(listing, ::testing::ContainsRegex("crw------- .*5, +1 .* dev/console\n"));
  EXPECT_THAT(listing, ::testing::ContainsRegex("brw-rw---- .*254, +0 .* dev/vda\n"));
  EXPECT_THAT(listing, ::testing::ContainsRegex("-rwxr-xr-x .* 10 .* init\n"));
  EXPECT_THAT(listing, ::testing::ContainsRegex("-rw-r--r-- .* 0 .* empty\n"));
}

}  // namespace
}  // namespace skiff::firmware
