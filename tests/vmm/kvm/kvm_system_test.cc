// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/kvm_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "loop/result.h"

namespace skiff::vmm {
namespace {

using testing::HasSubstr;

std::string cpuinfo(const std::string& flags) {
  return "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu " + flags + "\nbogomips\t: 1\n";
}

TEST(KvmSystem, MissingDeviceNamesTheModuleForThisProcessor) {
  EXPECT_THAT(missing_kvm_advice(cpuinfo("vmx sse")), HasSubstr("modprobe kvm_intel"));
  EXPECT_THAT(missing_kvm_advice(cpuinfo("sse svm")), HasSubstr("modprobe kvm_amd"));
}

TEST(KvmSystem, ProcessorWithoutVirtualisationPointsToTheBios) {
  EXPECT_THAT(missing_kvm_advice(cpuinfo("sse")), HasSubstr("BIOS"));
  EXPECT_THAT(missing_kvm_advice(""), HasSubstr("BIOS"));
}

TEST(KvmSystem, GuestWithoutNestedVirtualisationIsToldSo) {
  EXPECT_THAT(missing_kvm_advice(cpuinfo("sse hypervisor")), HasSubstr("nested"));
}

TEST(KvmSystem, FlagIsNotFoundInsideAnotherWord) {
  EXPECT_THAT(missing_kvm_advice(cpuinfo("svm_lock notvmx")), HasSubstr("neither"));
}

TEST(KvmSystem, MissingDeviceIsNotFoundAndNamed) {
  const auto system = KvmSystem::open("/nonexistent/kvm");
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().kind(), loop::ErrorKind::kNotFound);
  EXPECT_THAT(system.error().message(), HasSubstr("/nonexistent/kvm"));
}

TEST(KvmSystem, FileThatIsNoKvmDeviceIsUnsupported) {
  const auto system = KvmSystem::open("/dev/null");
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().kind(), loop::ErrorKind::kUnsupported);
  EXPECT_THAT(system.error().message(), HasSubstr("Not a KVM device"));
}

}  // namespace
}  // namespace skiff::vmm
