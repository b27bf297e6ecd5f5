// SPDX-License-Identifier: GPL-2.0-or-later
// What cannot be run: exit status 120 and one line that says why. No guest starts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "loop/file.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uid_t kNobody = 65534;

// One line that names `what` and, if given, `why`.
void expect_refused(const Outcome& outcome, const std::string& what, const std::string& why = "") {
  EXPECT_EQ(outcome.status, 120);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, AllOf(StartsWith("skiff: "), HasSubstr(what), HasSubstr(why)));
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
}

Outcome run_kernel(const std::string& path, const Arguments& more = {}) {
  return run_skiff(Arguments{"run", "--kernel", path} + more);
}

Outcome run_with(const Arguments& more) { return run_kernel(image("vmlinuz"), more); }

TEST(BadInput, FilesThatAreNotThere) {
  expect_refused(run_kernel("/no/such/kernel"), "/no/such/kernel", "No such file");
  expect_refused(run_with({"--initrd", "/no/such/initrd"}), "/no/such/initrd", "No such file");
  expect_refused(run_with({"--disk", "path=/no/such/disk,format=raw"}), "/no/such/disk",
                 "No such file");
  expect_refused(run_with({"--config", "/no/such.json"}), "/no/such.json", "No such file");
}

TEST(BadInput, DirectoriesInTheirPlace) {
  const std::string directory = ::testing::TempDir();
  expect_refused(run_kernel(directory), directory, "not a regular file");
  expect_refused(run_with({"--initrd", directory}), directory, "not a regular file");
  expect_refused(run_with({"--disk", "path=" + directory + ",format=raw"}), directory, "directory");
}

TEST(BadInput, KernelsThatAreNone) {
  const ScratchFile empty("empty");
  expect_refused(run_kernel(empty.path()), empty.path(), "empty");
  const ScratchFile noise("noise");
  noise.fill_with_noise(1 << 20);
  expect_refused(run_kernel(noise.path()), noise.path(), "no kernel that can be booted");

  for (const char* name : {"vmlinuz", "vmlinux"}) {
    const auto whole = loop::MappedFile::open(image(name));
    ASSERT_TRUE(whole);
    for (const size_t bytes :
         {size_t{64}, size_t{1000}, size_t{1} << 20, whole->bytes().size() / 2})
      expect_refused(run_kernel(ScratchFile("truncated", whole->bytes().first(bytes)).path()),
                     "truncated");
  }
}

TEST(BadInput, NumbersOutOfRange) {
  expect_refused(run_with({"--cpus", "0"}), "cpus", "1 to 255");
  expect_refused(run_with({"--cpus", "5000"}), "cpus", "1 to 255");
  expect_refused(run_with({"--cpus", "4,sockets=3"}), "cpus", "do not divide");
  expect_refused(run_with({"--memory", "0"}), "memory", "8M to 16T");
  expect_refused(run_with({"--memory", "lots"}), "lots", "8M to 16T");
  expect_refused(run_with({"--memory", "15T"}), "15728640 MiB", "more than this host has");
  expect_refused(run_with({"--timeout", "-1"}), "timeout");
  expect_refused(run_with({"--cpus", "2,mask=avx9"}), "avx9");
}

TEST(BadInput, MemoryTooSmallForTheKernel) {
  expect_refused(run_with({"--memory", "8M"}), "vmlinuz");
}

TEST(BadInput, DiskOfAnotherFormatAndControlSocketNowhere) {
  const std::string qcow2 = "QFI\xfb and more";
  const ScratchFile disk("qcow2", std::as_bytes(std::span(qcow2)));
  expect_refused(run_with({"--disk", "path=" + disk.path()}), disk.path(), "qcow2");
  expect_refused(run_with({"--control", "/no/such/place/socket"}), "/no/such/place/socket");
  expect_refused(run_with({"--serial", "file:/no/such/place/log"}), "/no/such/place/log");
}

TEST(BadInput, ConfigurationsThatSayNonsense) {
  const auto run_config = [](const std::string& text) {
    const ScratchFile config("config", std::as_bytes(std::span(text)));
    return run_skiff({"run", "--config", config.path()});
  };
  expect_refused(run_config("{"), "config");
  expect_refused(run_config("{\"kernal\": \"x\"}"), "kernal");
  expect_refused(run_config("{\"kernel\": \"/k\", \"cpus\": 300}"), "300", "1 to 255");
}

class WithoutRights : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody with fewer rights";
    struct stat info = {};
    ASSERT_EQ(::stat("/dev/kvm", &info), 0);
    kvm_mode_ = info.st_mode & 07777;
  }
  void TearDown() override {
    if (kvm_mode_) ::chmod("/dev/kvm", *kvm_mode_);
  }

 private:
  std::optional<mode_t> kvm_mode_;
};

TEST_F(WithoutRights, DevKvmIsNamedWithWhatToDo) {
  ASSERT_EQ(::chmod("/dev/kvm", 0600), 0);
  const Outcome outcome = run_skiff({"run", "--kernel", image("vmlinuz")},
                                    {.standard_streams_closed = false, .user = kNobody});
  expect_refused(outcome, "/dev/kvm", "ermission");
}

TEST_F(WithoutRights, UnreadableFilesAreNamed) {
  ASSERT_EQ(::chmod("/dev/kvm", 0666), 0);
  const ScratchFile secret("secret", 1 << 20);  // Mode 0600, of root.
  const SkiffProcess::Options nobody = {.standard_streams_closed = false, .user = kNobody};
  expect_refused(run_skiff({"run", "--kernel", secret.path()}, nobody), secret.path(),
                 "Permission denied");
  expect_refused(run_skiff({"run", "--kernel", image("vmlinuz"), "--disk",
                            "path=" + secret.path() + ",format=raw"},
                           nobody),
                 secret.path(), "Permission denied");
}

}  // namespace
}  // namespace skiff::guest
