// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/doctor_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/probe.h"
#include "loop/result.h"

namespace skiff::vmm {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

TEST(DoctorDisk, TableHasALineForEachEngineAndTheReasonOfThoseThatDoNotWork) {
  block::DiskFinding finding;
  finding.name = "a.img";
  finding.size_bytes = 4096;
  finding.nowait = block::Answer::kNo;
  finding.engines = {
      {.kind = block::IoEngineKind::kSync, .usable = true, .p50_ns = 1'500, .worst_ns = 9'900},
      {.kind = block::IoEngineKind::kLinuxAio, .why_not = "needs direct=on"}};
  finding.io_uring = {.usable = false, .why_not = "refused by a seccomp filter"};
  finding.choice = "threads";
  const std::string text = disk_finding_text(finding);
  EXPECT_THAT(text, HasSubstr("Disk a.img: 4096 bytes"));
  EXPECT_THAT(text, ContainsRegex("RWF_NOWAIT\\) +no"));
  EXPECT_THAT(text, ContainsRegex("sync +yes +1.5 us +9.9 us"));
  EXPECT_THAT(text, ContainsRegex("linux-aio +no +needs direct=on"));
  EXPECT_THAT(text, ContainsRegex("io_uring +no: refused by a seccomp filter"));
  EXPECT_THAT(text, HasSubstr("auto: threads\n"));
}

TEST(DoctorDisk, WhatIsNoDiskIsRefusedWithAReason) {
  const auto directory = examine_disk("/", block::DirectIo::kOff);
  ASSERT_FALSE(directory);
  EXPECT_THAT(directory.error().message(), HasSubstr("is a directory"));
  const auto missing = examine_disk("/no/such/file", block::DirectIo::kOff);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), loop::ErrorKind::kNotFound);
  EXPECT_FALSE(examine_disk("null:latency=soon", block::DirectIo::kOff));
}

TEST(DoctorDisk, ANullDeviceIsExaminedLikeAFile) {
  const auto finding = examine_disk("null:size=1M", block::DirectIo::kOff);
  ASSERT_TRUE(finding) << finding.error().message();
  EXPECT_THAT(disk_finding_text(*finding), HasSubstr("null:size=1M"));
  EXPECT_THAT(disk_finding_text(*finding), ContainsRegex("RWF_NOWAIT\\) +not tried"));
}

}  // namespace
}  // namespace skiff::vmm
