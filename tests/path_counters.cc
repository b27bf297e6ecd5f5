// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/path_counters.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace skiff {

std::atomic<uint64_t> counted_allocations{0};
std::atomic<uint64_t> counted_locks{0};

}  // namespace skiff

void* operator new(size_t size) {
  skiff::counted_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

// Every mutex of C++ ends here.
extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) {
  using Lock = int (*)(pthread_mutex_t*);
  static const auto kReal = reinterpret_cast<Lock>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  skiff::counted_locks.fetch_add(1, std::memory_order_relaxed);
  return kReal(mutex);
}
