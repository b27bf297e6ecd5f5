// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skiff::vmm {
namespace {

using testing::HasSubstr;
using testing::Not;

HostProbe probe(double kernel_turn_ns, double user_turn_ns) {
  return {.module = "kvm_amd",
          .kernel_turn_ns = kernel_turn_ns,
          .user_turn_ns = user_turn_ns,
          .kernel_complete = true,
          .user_complete = true};
}

TEST(Doctor, EqualSpeedInKernelAndUserCodeIsFullSpeed) {
  const HostFinding finding = judge_host(probe(0.4, 0.3));
  EXPECT_EQ(finding.kind, HostKind::kFullSpeed);
  EXPECT_EQ(doctor_exit_status(finding), 0);
  EXPECT_THAT(doctor_text(finding), HasSubstr("full speed (kvm_amd)"));
  EXPECT_THAT(doctor_text(finding), Not(HasSubstr("lab")));
}

TEST(Doctor, SlowHostThatIsEvenlySlowIsFullSpeed) {
  // As seen in the lab, with a first turn that is slower.
  EXPECT_EQ(judge_host(probe(60, 4.4)).kind, HostKind::kFullSpeed);
}

TEST(Doctor, KernelCodeAThousandTimesSlowerIsEmulated) {
  const HostFinding finding = judge_host(probe(1000, 0.3));
  EXPECT_EQ(finding.kind, HostKind::kKernelEmulated);
  EXPECT_EQ(doctor_exit_status(finding), 2);
  EXPECT_THAT(doctor_text(finding), HasSubstr("No stock kernel boots here"));
  EXPECT_THAT(doctor_text(finding), HasSubstr("scripts/lab"));
  EXPECT_THAT(doctor_text(finding), Not(HasSubstr("popcnt")));
}

TEST(Doctor, AnInstructionThatFailsInTheKernelIsEmulationHoweverFast) {
  HostProbe incomplete = probe(0.4, 0.3);
  incomplete.kernel_complete = false;
  const HostFinding finding = judge_host(incomplete);
  EXPECT_EQ(finding.kind, HostKind::kKernelEmulated);
  EXPECT_THAT(doctor_text(finding), HasSubstr("popcnt"));
}

TEST(Doctor, HostThatCannotRunUserCodeIsUnusableAndSaysWhy) {
  HostProbe broken = probe(0.4, 0);
  broken.user_complete = false;
  broken.failure = "KVM failed to enter the guest";
  const HostFinding finding = judge_host(broken);
  EXPECT_EQ(finding.kind, HostKind::kUnusable);
  EXPECT_EQ(doctor_exit_status(finding), 3);
  EXPECT_THAT(doctor_text(finding), HasSubstr("KVM failed to enter the guest"));
}

TEST(Doctor, HostWithoutKvmIsUnusableAndPointsToTheLab) {
  const HostFinding finding = examine_host("/nonexistent/kvm");
  EXPECT_EQ(finding.kind, HostKind::kUnusable);
  EXPECT_THAT(doctor_text(finding), HasSubstr("/nonexistent/kvm"));
  EXPECT_THAT(doctor_text(finding), HasSubstr("scripts/lab"));
}

}  // namespace
}  // namespace skiff::vmm
