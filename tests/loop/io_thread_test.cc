// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/io_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "loop/cpu_set.h"
#include "loop/result.h"

namespace skiff::loop {
namespace {

TEST(IoThreadTest, RunsItsLoopOnItsOwnNamedAndPinnedThread) {
  Result<CpuSet> cpus = CpuSet::of_process();
  ASSERT_TRUE(cpus);
  CpuSet one;
  for (uint32_t cpu = 0; one.empty(); ++cpu)
    if (cpus->contains(cpu)) one.add(cpu);
  Result<std::unique_ptr<IoThread>> io = IoThread::create({.name = "io7", .cpus = one});
  ASSERT_TRUE(io);
  EXPECT_FALSE((*io)->loop().is_current());

  std::string name;
  std::string pinned_to;
  std::atomic<bool> done{false};
  (*io)->loop().post([&] {
    std::array<char, 16> buffer{};
    pthread_getname_np(pthread_self(), buffer.data(), buffer.size());
    name = buffer.data();
    pinned_to = CpuSet::of_current_thread()->to_string();
    EXPECT_TRUE((*io)->loop().is_current());
    done = true;
  });
  while (!done) sched_yield();
  EXPECT_EQ(name, "io7");
  EXPECT_EQ(pinned_to, one.to_string());
}

TEST(IoThreadTest, ManyStartAndStopAtOnce) {
  for (int round = 0; round < 50; ++round) {
    Result<std::unique_ptr<IoThread>> first = IoThread::create({.name = "a"});
    Result<std::unique_ptr<IoThread>> second = IoThread::create({.name = "b"});
    ASSERT_TRUE(first);
    ASSERT_TRUE(second);
  }
}

TEST(IoThreadTest, ImpossibleCpusAreAnErrorThatNamesThem) {
  CpuSet absent;
  absent.add(CpuSet::kMaxCpus - 1);
  Result<std::unique_ptr<IoThread>> io = IoThread::create({.name = "io", .cpus = absent});
  ASSERT_FALSE(io);
  EXPECT_EQ(io.error().kind(), ErrorKind::kInvalidArgument);
  EXPECT_NE(io.error().message().find("8191"), std::string::npos) << io.error().message();
}

}  // namespace
}  // namespace skiff::loop
