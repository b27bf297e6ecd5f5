// SPDX-License-Identifier: GPL-2.0-or-later
// Mutex and friends: std's, made visible to clang's thread-safety analysis.
//
// For state that a vCPU thread and a loop must share, and for nothing on a request's path. Held
// across no callback, no blocking system call and no co_await. Thread: any.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <shared_mutex>

#include "loop/thread_annotations.h"

namespace skiff::loop {

class SKIFF_CAPABILITY("mutex") Mutex {
 public:
  void lock() SKIFF_ACQUIRE() { mutex_.lock(); }
  void unlock() SKIFF_RELEASE() { mutex_.unlock(); }
  std::mutex& native() { return mutex_; }

 private:
  std::mutex mutex_;
};

class SKIFF_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) SKIFF_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() SKIFF_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Readers share, a writer excludes.
class SKIFF_CAPABILITY("shared mutex") SharedMutex {
 public:
  void lock() SKIFF_ACQUIRE() { mutex_.lock(); }
  void unlock() SKIFF_RELEASE() { mutex_.unlock(); }
  void lock_shared() SKIFF_THREAD_ANNOTATION(acquire_shared_capability()) { mutex_.lock_shared(); }
  void unlock_shared() SKIFF_THREAD_ANNOTATION(release_shared_capability()) {
    mutex_.unlock_shared();
  }

 private:
  std::shared_mutex mutex_;
};

class SKIFF_SCOPED_CAPABILITY SharedReadLock {
 public:
  explicit SharedReadLock(SharedMutex& mutex)
      SKIFF_THREAD_ANNOTATION(acquire_shared_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~SharedReadLock() SKIFF_THREAD_ANNOTATION(release_generic_capability()) {
    mutex_.unlock_shared();
  }
  SharedReadLock(const SharedReadLock&) = delete;
  SharedReadLock& operator=(const SharedReadLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class SKIFF_SCOPED_CAPABILITY SharedWriteLock {
 public:
  explicit SharedWriteLock(SharedMutex& mutex) SKIFF_ACQUIRE(mutex) : mutex_(mutex) {
    mutex_.lock();
  }
  ~SharedWriteLock() SKIFF_RELEASE() { mutex_.unlock(); }
  SharedWriteLock(const SharedWriteLock&) = delete;
  SharedWriteLock& operator=(const SharedWriteLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// Waits with a Mutex held; spurious wake-ups happen, so wait in a loop on the condition.
class ConditionVariable {
 public:
  void wait(Mutex& mutex) SKIFF_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when `timeout_ns` passed without a notification.
  bool wait_for(Mutex& mutex, int64_t timeout_ns) SKIFF_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.native(), std::adopt_lock);
    const auto status = condition_.wait_for(lock, std::chrono::nanoseconds(timeout_ns));
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace skiff::loop
