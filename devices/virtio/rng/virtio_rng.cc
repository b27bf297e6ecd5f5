// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/rng/virtio_rng.h"

#include <sys/random.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "devices/core/guest_memory.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/queue_set.h"
#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::devices {

using loop::Result;

namespace {

constexpr uint16_t kQueueSize = 64;
// getrandom() holds the thread in the kernel for the whole of one call.
constexpr size_t kBytesPerCall = 4096;

}  // namespace

int64_t VirtioRng::host_random(std::span<std::byte> into) {
  const ssize_t got = ::getrandom(into.data(), std::min(into.size(), kBytesPerCall), GRND_NONBLOCK);
  return got < 0 ? -int64_t{errno} : got;
}

Result<std::unique_ptr<VirtioRng>> VirtioRng::create(loop::EventLoop& home,
                                                     const GuestMemory& memory, Source source) {
  std::unique_ptr<VirtioRng> rng(new VirtioRng(home, std::move(source)));
  auto queues = QueueSet::create({.home = &home,
                                  .memory = &memory,
                                  .name = std::string(rng->name()),
                                  .queue_sizes = {kQueueSize}});
  if (!queues) return queues.error();
  rng->queues_ = *std::move(queues);
  return rng;
}

void VirtioRng::read_config(uint64_t, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0});
}

void VirtioRng::queues_started(uint64_t) {
  home_.assert_here();
  retry_.emplace(home_.loop(), loop::Priority::kDevice, [this] { queues_->runner(0).schedule(); });
}

void VirtioRng::queues_stopping() {
  home_.assert_here();
  retry_.reset();
  if (std::exchange(chain_waits_, false)) queues_->runner(0).queue().undo_pop(chain_.head());
}

QueueHandler::Served VirtioRng::serve(QueueRunner& runner) {
  home_.assert_here();
  SKIFF_CHECK(retry_);
  uint64_t bytes_left = kBytesPerTurn;
  for (uint16_t budget = runner.queue().size(); budget > 0 && bytes_left > 0; --budget) {
    if (!chain_waits_ && runner.queue().pop(chain_) != VirtQueue::Pop::kChain)
      return QueueHandler::Served::kAll;
    // 5.4.6: readable buffers are not allowed; they are of no use to us and do no harm. Less than
    // the buffer's length may be given, so a chain never waits for a second turn.
    const int64_t written = fill(std::min(bytes_left, chain_.writable_bytes()));
    chain_waits_ = written < 0;
    if (chain_waits_) {
      retry_->arm_after(kRetryNs);
      return QueueHandler::Served::kBlocked;
    }
    bytes_left -= static_cast<uint64_t>(written);
    runner.complete(chain_.head(), static_cast<uint32_t>(written));
  }
  return QueueHandler::Served::kMore;
}

int64_t VirtioRng::fill(uint64_t at_most_bytes) {
  uint64_t written = 0;
  for (const iovec& part : chain_.writable()) {
    std::span<std::byte> left(static_cast<std::byte*>(part.iov_base), part.iov_len);
    while (!left.empty() && written < at_most_bytes) {
      const int64_t got =
          source_(left.first(std::min<uint64_t>(left.size(), at_most_bytes - written)));
      if (got == -EINTR) continue;
      // Some is enough; with nothing at all the guest would be told a lie (5.4.6.2: one or more).
      if (got <= 0) return written > 0 ? static_cast<int64_t>(written) : -EAGAIN;
      written += static_cast<uint64_t>(got);
      left = left.subspan(static_cast<size_t>(got));
    }
  }
  return static_cast<int64_t>(written);
}

}  // namespace skiff::devices
