// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/thread_usage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "loop/thread.h"
#include "vmm/bench/tsc_rate.h"

namespace skiff::vmm {
namespace {

const ThreadUsage* find(const std::vector<ThreadUsage>& threads, const std::string& name) {
  const auto found = std::ranges::find(threads, name, &ThreadUsage::name);
  return found == threads.end() ? nullptr : &*found;
}

TEST(ThreadUsage, TellsWhoWorkedAndWhoSlept) {
  std::atomic<int> phase = 0;
  std::atomic<uint64_t> turned = 0;
  auto busy = loop::Thread::create({.name = "busy one) 1"}, [&] {
    while (phase.load() == 0) turned.fetch_add(1);
    phase.wait(1);
  });
  auto idle = loop::Thread::create({.name = "idle"}, [&] {
    while (phase.load() != 2) phase.wait(phase.load());
  });
  ASSERT_TRUE(busy && idle);
  const auto begin = threads_of(::getpid());
  const uint64_t before = turned.load();
  while (turned.load() < before + 10'000'000) {
  }
  const auto used = usage_since(begin, threads_of(::getpid()));
  phase.store(1);
  phase.notify_all();
  phase.store(2);
  phase.notify_all();
  busy->join();
  idle->join();
  const ThreadUsage* worked = find(used, "busy one) 1");
  const ThreadUsage* slept = find(used, "idle");
  ASSERT_NE(worked, nullptr);
  ASSERT_NE(slept, nullptr);
  EXPECT_GT(worked->cpu_ns, 1'000'000);
  EXPECT_LT(slept->cpu_ns, worked->cpu_ns);
}

TEST(ThreadUsage, NoProcessHasNoThreads) { EXPECT_TRUE(threads_of(-1).empty()); }

TEST(TscRate, IsThatOfTheCounter) {
  const uint64_t khz = tsc_khz();
  EXPECT_GT(khz, 100'000u);
  EXPECT_LT(khz, 20'000'000u);
  EXPECT_EQ(tsc_khz(), khz);
}

}  // namespace
}  // namespace skiff::vmm
