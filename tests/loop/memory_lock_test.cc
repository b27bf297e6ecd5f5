// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/memory_lock.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <utility>

#include "loop/result.h"

namespace skiff::loop {
namespace {

// The sanitizers turn mlock(2) into nothing.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SKIFF_NO_MLOCK 1
#endif
#endif
#if defined(SKIFF_NO_MLOCK) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHasMlock = false;
#else
constexpr bool kHasMlock = true;
#endif

constexpr size_t kBytes = size_t{4} << 20;

long locked_kib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmLck:") continue;
    long kib = 0;
    status >> kib;
    return kib;
  }
  return -1;
}

std::span<std::byte> map_memory() {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return {static_cast<std::byte*>(memory), kBytes};
}

TEST(MemoryLockTest, RangeStaysLockedForAsLongAsTheLockLives) {
  if (!kHasMlock) GTEST_SKIP() << "built with a sanitizer";
  const std::span<std::byte> memory = map_memory();
  const long before = locked_kib();
  {
    Result<MemoryLock> lock = MemoryLock::lock_range(memory);
    if (!lock) GTEST_SKIP() << lock.error().message();
    const MemoryLock moved = *std::move(lock);
    EXPECT_EQ(locked_kib(), before + static_cast<long>(kBytes >> 10));
  }
  EXPECT_EQ(locked_kib(), before);
  munmap(memory.data(), memory.size());
}

// In a child: gives up every capability and locks more than the limit.
void lock_beyond_the_limit() {
  const rlimit small{.rlim_cur = 65536, .rlim_max = 65536};
  setrlimit(RLIMIT_MEMLOCK, &small);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> none{};
  syscall(SYS_capset, &header, none.data());
  Result<MemoryLock> lock = MemoryLock::lock_range(map_memory());
  if (lock) _exit(1);
  fprintf(stderr, "%s\n", lock.error().message().c_str());
  _exit(lock.error().kind() == ErrorKind::kExhausted ? 0 : 2);
}

TEST(MemoryLockTest, RefusalNamesTheLimitAndWhatToDo) {
  if (!kHasMlock) GTEST_SKIP() << "built with a sanitizer";
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(lock_beyond_the_limit(), ::testing::ExitedWithCode(0),
              "Locking 4 MiB.*RLIMIT_MEMLOCK. is 64 KiB.*ulimit -l.*CAP_IPC_LOCK");
}

}  // namespace
}  // namespace skiff::loop
