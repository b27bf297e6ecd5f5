// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/memory_lock.h"

#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "loop/result.h"

namespace skiff::loop {
namespace {

std::string limit_text() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return limit.rlim_cur == RLIM_INFINITY ? std::string("unlimited")
                                         : fmt::format("{} KiB", limit.rlim_cur / 1024);
}

Error refusal(int os_error, const std::string& what) {
  const std::string facts = Error::from_errno(os_error, what).message();
  // mlock(2): ENOMEM is the limit, EPERM a limit of zero, EAGAIN pages that could not be had.
  if (os_error == EAGAIN)
    return Error(ErrorKind::kExhausted, facts + "; the host has not enough free memory", os_error);
  return Error(os_error == EPERM ? ErrorKind::kPermission : ErrorKind::kExhausted,
               fmt::format("{}; the limit on locked memory (RLIMIT_MEMLOCK) is {}: raise it with "
                           "ulimit -l or LimitMEMLOCK=, or give the process CAP_IPC_LOCK",
                           facts, limit_text()),
               os_error);
}

}  // namespace

Result<MemoryLock> MemoryLock::lock_range(std::span<std::byte> memory) {
  if (::mlock(memory.data(), memory.size()) != 0)
    return refusal(errno, fmt::format("Locking {} MiB in memory", memory.size() >> 20));
  return MemoryLock(memory);
}

MemoryLock& MemoryLock::operator=(MemoryLock&& other) noexcept {
  if (this != &other) {
    unlock();
    memory_ = std::exchange(other.memory_, {});
  }
  return *this;
}

void MemoryLock::unlock() {
  if (!memory_.empty()) ::munlock(memory_.data(), memory_.size());
}

}  // namespace skiff::loop
