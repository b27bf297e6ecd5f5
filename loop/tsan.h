// SPDX-License-Identifier: GPL-2.0-or-later
// Tells ThreadSanitizer of orderings that go through the kernel by way of an io_uring.
//
// Thread: any. Expands to nothing in ordinary builds.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define SKIFF_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SKIFF_TSAN 1
#endif
#endif

#ifdef SKIFF_TSAN
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);

namespace skiff::loop {

// A write to an eventfd happens before the READ on a ring that sees it; one cell per descriptor.
inline void* tsan_cell_of_fd(int fd) {
  static char cells[4096];
  return &cells[static_cast<unsigned>(fd) % sizeof(cells)];
}

}  // namespace skiff::loop

#define SKIFF_TSAN_NOTIFIED(fd) __tsan_release(::skiff::loop::tsan_cell_of_fd(fd))
#define SKIFF_TSAN_CONSUMED(fd) __tsan_acquire(::skiff::loop::tsan_cell_of_fd(fd))
#else
#define SKIFF_TSAN_NOTIFIED(fd) static_cast<void>(fd)
#define SKIFF_TSAN_CONSUMED(fd) static_cast<void>(fd)
#endif
