// SPDX-License-Identifier: GPL-2.0-or-later
// A stock kernel with a disk that another process serves over vhost-user.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/block/nbd/server_process.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kDiskBytes = 16 << 20;

std::vector<std::string> skiff_storage(const std::string& socket, const std::string& disk) {
  const char* program = std::getenv("SKIFF_PROGRAM");
  return {program != nullptr ? program : "skiff",
          "storage",
          "--socket",
          socket,
          "--disk",
          "path=" + disk};
}
std::vector<std::string> qemu_storage_daemon(const std::string& socket, const std::string& disk) {
  return {"qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=" + disk,
          "--export",
          "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,addr.type=unix,"
          "addr.path=" +
              socket};
}

struct Server {
  const char* name;
  std::vector<std::string> (*command)(const std::string& socket, const std::string& disk);
};
class ServedDisk : public ::testing::TestWithParam<Server> {};

TEST_P(ServedDisk, IsReadAndWrittenAsItIs) {
  const ScratchFile file("served");
  file.fill_with_noise(kDiskBytes);
  const std::string before = md5_of_file(file.path());
  const std::string first_half = file.read(0, kDiskBytes / 2);
  const ScratchPath socket("vhost");
  const block::ServerProcess server(GetParam().command(socket.path(), file.path()), socket.path());
  ASSERT_FALSE(HasFailure());
  // The second half becomes the first, by four writers at a time; the caches are dropped between.
  const Outcome outcome = run_skiff(
      exec_guest(
          "md5sum < /dev/vda; for i in 0 1 2 3; do dd if=/dev/vda of=/dev/vda bs=64k "
          "count=32 skip=$((i * 32)) seek=$((128 + i * 32)) conv=notrunc,fsync 2>/dev/null & "
          "done; wait; echo 3 > /proc/sys/vm/drop_caches; md5sum < /dev/vda; "
          "cat /sys/block/vda/size; ls /sys/block/vda/mq | wc -l") +
      Arguments{"--cpus", "2", "--disk", "vhost-user=" + socket.path()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(file.read(0, kDiskBytes / 2) == first_half);
  EXPECT_TRUE(file.read(kDiskBytes / 2, kDiskBytes / 2) == first_half);
  EXPECT_EQ(outcome.out, before + "  -\n" + md5_of_file(file.path()) + "  -\n32768\n2\n");
}

INSTANTIATE_TEST_SUITE_P(Servers, ServedDisk,
                         ::testing::Values(Server{"SkiffStorage", skiff_storage},
                                           Server{"QemuStorageDaemon", qemu_storage_daemon}),
                         [](const auto& param) { return param.param.name; });

// Four writers at a time; what they have written is compared afterwards.
TEST(ServedDiskOverDeath, LosesNothing) {
  constexpr uint64_t kBlocks = 64;
  constexpr uint64_t kBlockBytes = 64 << 10;
  const ScratchFile file("killed", kBlocks * kBlockBytes);
  const ScratchPath socket("vhost");
  block::ServerProcess server(skiff_storage(socket.path(), file.path()), socket.path());
  ASSERT_FALSE(::testing::Test::HasFailure());
  SkiffProcess skiff(
      exec_guest("write() { yes block-$1 | head -c 65536 | dd of=/dev/vda bs=64k seek=$1 "
                 "iflag=fullblock oflag=direct conv=notrunc 2>/dev/null || echo FAILED $1; };"
                 "for q in 0 16 32 48; do (for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do "
                 "write $((q + i)); echo WRITTEN $((q + i)); done) & done; wait; echo DONE") +
      Arguments{"--cpus", "2", "--disk", "vhost-user=" + socket.path()});
  for (const char* mark : {"WRITTEN 3\n", "WRITTEN 9\n"}) {
    ASSERT_TRUE(skiff.wait_for_output(mark)) << skiff.transcript();
    server.restart();
  }
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("DONE"), Not(HasSubstr("FAILED"))));
  EXPECT_THAT(outcome.err, HasSubstr("is back"));
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const std::string line = "block-" + std::to_string(block) + "\n";
    std::string expected;
    while (expected.size() < kBlockBytes) expected += line;
    expected.resize(kBlockBytes);
    EXPECT_TRUE(file.read(block * kBlockBytes, kBlockBytes) == expected) << "block " << block;
  }
}

}  // namespace
}  // namespace skiff::guest
