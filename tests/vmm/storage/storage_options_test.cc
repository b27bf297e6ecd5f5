// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/storage/storage_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

std::string error_of(const StorageWords& words) {
  const auto options = parse_storage(words);
  return options ? "" : options.error().message();
}

TEST(StorageOptions, EachSocketIsOfTheDiskInItsPlace) {
  const auto options = parse_storage({.sockets = {"/run/a", "/run/b"},
                                      .disks = {"a.img,queues=4", "path=b.img,readonly=on"},
                                      .iothreads = {"id=io0", "id=io1"}});
  ASSERT_TRUE(options) << options.error().message();
  ASSERT_EQ(options->exports.size(), 2u);
  EXPECT_EQ(options->exports[0].socket, "/run/a");
  EXPECT_EQ(options->exports[0].disk.path, "a.img");
  EXPECT_EQ(options->exports[0].disk.queues, 4u);
  EXPECT_TRUE(options->exports[1].disk.readonly);
  EXPECT_EQ(options->iothreads.size(), 2u);
}

TEST(StorageOptions, SocketsAndDisksMustBeAsMany) {
  EXPECT_THAT(error_of({.sockets = {"/run/a"}, .disks = {"a.img", "b.img"}}),
              HasSubstr("1 sockets for 2 disks"));
}

TEST(StorageOptions, WhatOnlyAMachineCanDoIsRefused) {
  EXPECT_THAT(error_of({.sockets = {"/s"}, .disks = {"a.img,werror=stop"}}),
              HasSubstr("report or ignore"));
  EXPECT_THAT(error_of({.sockets = {"/s"}, .disks = {"a.img,submit=vcpu"}}),
              HasSubstr("submit=vcpu"));
}

TEST(StorageOptions, ThreadsThatADiskNamesMustBeThere) {
  EXPECT_NE(
      error_of({.sockets = {"/s"}, .disks = {"a.img,iothreads=io7"}, .iothreads = {"id=io0"}}), "");
}

TEST(StorageOptions, WrongWordsAreExplained) {
  EXPECT_THAT(error_of({.sockets = {"/s"}, .disks = {"a.img,engine=fast"}}), HasSubstr("engine"));
  EXPECT_THAT(error_of({.sockets = {"/s"}, .disks = {"a.img"}, .log = "loud"}), HasSubstr("log"));
}

}  // namespace
}  // namespace skiff::vmm
