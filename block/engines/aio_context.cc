// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/aio_context.h"

#include <linux/aio_abi.h>
#include <spdlog/fmt/fmt.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <span>
#include <utility>

#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;

constexpr uint32_t kRingMagic = 0xa10a10a1;

uint64_t system_number(const char* path) {
  std::ifstream file(path);
  uint64_t number = 0;
  file >> number;
  return number;
}

Error refusal(int os_error) {
  if (os_error == EAGAIN) {
    return Error(
        ErrorKind::kExhausted,
        fmt::format("Engine linux-aio: all of the system's {} aio slots are in use (now "
                    "{}); raise sysctl fs.aio-max-nr, or choose another engine",
                    system_number("/proc/sys/fs/aio-max-nr"), system_number("/proc/sys/fs/aio-nr")),
        os_error);
  }
  const Error facts = Error::from_errno(os_error, "Engine linux-aio: setting up an aio context");
  const bool refused = os_error == ENOSYS || os_error == EPERM;
  return Error(refused ? ErrorKind::kUnsupported : facts.kind(),
               facts.message() + (refused ? " (this kernel has no aio, or a seccomp filter refuses "
                                            "it; choose another engine)"
                                          : ""),
               os_error);
}

}  // namespace

// What lies at the context's address. Head is ours, tail the kernel's.
struct AioContext::Ring {
  uint32_t id;
  uint32_t entries;
  uint32_t head;
  uint32_t tail;
  uint32_t magic;
  uint32_t compatible_features;
  uint32_t incompatible_features;
  uint32_t header_bytes;
};

loop::Result<AioContext> AioContext::create(uint32_t depth) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, depth, &context) != 0) return refusal(errno);
  return AioContext(context);
}

AioContext::AioContext(AioContext&& other) noexcept : context_(std::exchange(other.context_, 0)) {}

AioContext::~AioContext() {
  if (context_ != 0) syscall(SYS_io_destroy, context_);
}

int32_t AioContext::submit(std::span<iocb* const> batch) const {
  const long taken = syscall(SYS_io_submit, context_, batch.size(), batch.data());
  return taken < 0 ? -errno : static_cast<int32_t>(taken);
}

uint32_t AioContext::take(std::span<io_event> events) const {
  auto* ring = reinterpret_cast<Ring*>(context_);
  const bool known = ring->magic == kRingMagic && ring->incompatible_features == 0 &&
                     ring->header_bytes == sizeof(Ring);
  if (!known) {
    timespec at_once = {};
    const long taken =
        syscall(SYS_io_getevents, context_, 0L, events.size(), events.data(), &at_once);
    return taken < 0 ? 0 : static_cast<uint32_t>(taken);
  }
  const auto* entries = reinterpret_cast<const io_event*>(ring + 1);
  const uint32_t tail = std::atomic_ref(ring->tail).load(std::memory_order_acquire);
  uint32_t head = ring->head;
  uint32_t count = 0;
  while (head != tail && count < events.size()) {
    events[count++] = entries[head];
    head = (head + 1) % ring->entries;
  }
  // The kernel may use the entries again once it sees the new head.
  if (count > 0) std::atomic_ref(ring->head).store(head, std::memory_order_release);
  return count;
}

}  // namespace skiff::block
