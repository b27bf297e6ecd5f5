// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/file_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using ::testing::HasSubstr;

class FileLockTest : public ::testing::Test {
 protected:
  loop::UniqueFd open() const { return loop::UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC)); }
  loop::Result<void> lock(const loop::UniqueFd& fd, ImageAccess access) const {
    return lock_image(fd.get(), path_, access);
  }
  // Exit status 0 and not a word of locks: it worked.
  bool qemu_io(const std::string& arguments) const {
    const std::string command =
        "qemu-io -f raw " + arguments + " " + path_ + " >" + dir_.path("log") + " 2>&1";
    return std::system(command.c_str()) == 0;
  }
  void needs_qemu_io() const {
    if (std::system("command -v qemu-io >/dev/null") != 0)
      GTEST_SKIP() << "qemu-io is not installed";
  }

  TempDir dir_;
  const std::string path_ = dir_.make_sparse("disk.img", 1 << 20);
};

TEST_F(FileLockTest, SecondWriterIsRefusedAndToldByWhom) {
  const auto first = open();
  const auto second = open();
  ASSERT_TRUE(lock(first, ImageAccess::kReadWrite));
  const auto refused = lock(second, ImageAccess::kReadWrite);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), loop::ErrorKind::kBusy);
  EXPECT_THAT(refused.error().message(), HasSubstr("by this same process"));
}

TEST_F(FileLockTest, ReadersShare) {
  const auto first = open();
  const auto second = open();
  EXPECT_TRUE(lock(first, ImageAccess::kReadOnly));
  EXPECT_TRUE(lock(second, ImageAccess::kReadOnly));
}

TEST_F(FileLockTest, ReaderAndWriterExcludeEachOther) {
  const auto first = open();
  const auto second = open();
  ASSERT_TRUE(lock(first, ImageAccess::kReadOnly));
  EXPECT_FALSE(lock(second, ImageAccess::kReadWrite));
  const auto third = open();
  ASSERT_FALSE(lock(third, ImageAccess::kReadWrite));
}

TEST_F(FileLockTest, WriterKeepsReadersAway) {
  const auto writer = open();
  const auto reader = open();
  ASSERT_TRUE(lock(writer, ImageAccess::kReadWrite));
  EXPECT_THAT(lock(reader, ImageAccess::kReadOnly).error().message(), HasSubstr("for writing"));
}

TEST_F(FileLockTest, RefusedOneLeavesNoLockBehind) {
  auto first = open();
  const auto second = open();
  ASSERT_TRUE(lock(first, ImageAccess::kReadWrite));
  ASSERT_FALSE(lock(second, ImageAccess::kReadWrite));
  first.reset();
  const auto third = open();
  EXPECT_TRUE(lock(third, ImageAccess::kReadWrite));  // `second` is still open.
}

TEST_F(FileLockTest, QemuIsKeptFromOurDiskAndMayComeAfterwards) {
  ASSERT_NO_FATAL_FAILURE(needs_qemu_io());
  if (IsSkipped()) return;
  auto ours = open();
  ASSERT_TRUE(qemu_io("-c 'write 0 512'"));
  ASSERT_TRUE(lock(ours, ImageAccess::kReadWrite));
  EXPECT_FALSE(qemu_io("-c 'write 0 512'"));
  ours.reset();
  EXPECT_TRUE(qemu_io("-c 'write 0 512'"));
}

TEST_F(FileLockTest, QemuMayReadWhatWeOnlyReadButNotWriteIt) {
  ASSERT_NO_FATAL_FAILURE(needs_qemu_io());
  if (IsSkipped()) return;
  const auto ours = open();
  ASSERT_TRUE(lock(ours, ImageAccess::kReadOnly));
  EXPECT_TRUE(qemu_io("-r -c 'read 0 512'"));
  EXPECT_FALSE(qemu_io("-c 'write 0 512'"));
}

TEST_F(FileLockTest, WeAreKeptFromQemusDiskAndToldItsProcess) {
  ASSERT_NO_FATAL_FAILURE(needs_qemu_io());
  if (IsSkipped()) return;
  int to_qemu[2];
  int from_qemu[2];
  ASSERT_EQ(pipe2(to_qemu, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(from_qemu, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    dup2(to_qemu[0], STDIN_FILENO);
    dup2(from_qemu[1], STDOUT_FILENO);
    execlp("qemu-io", "qemu-io", "-f", "raw", path_.c_str(), nullptr);
    _exit(127);
  }
  const loop::UniqueFd close_child_in(to_qemu[0]);
  loop::UniqueFd child_in(to_qemu[1]);
  const loop::UniqueFd child_out(from_qemu[0]);
  loop::UniqueFd(from_qemu[1]).reset();
  char prompt = 0;
  ASSERT_EQ(read(child_out.get(), &prompt, 1), 1);  // It has opened the image when it prompts.

  const auto ours = open();
  const auto refused = lock(ours, ImageAccess::kReadWrite);
  EXPECT_FALSE(refused);
  if (!refused) {
    EXPECT_THAT(refused.error().message(),
                HasSubstr("by qemu-io (process " + std::to_string(child) + ")"));
  }
  child_in.reset();  // End of input ends it.
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(lock(ours, ImageAccess::kReadWrite));
}

}  // namespace
}  // namespace skiff::block
