// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioRng: the entropy device (virtio 1.2, 5.4): the host's random bytes for the guest.
//
// Thread: as VirtioDevice; the queue is served on the home loop. Ownership: the machine's; borrows
// loop and memory. The loop must go on turning until stop() called back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "devices/core/guest_memory.h"
#include "devices/virtio/queue_set.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::devices {

class VirtioRng final : public VirtioDevice, private QueueOwner {
 public:
  // Fills a part of the span: bytes written, or -errno; -EAGAIN: ask later.
  using Source = std::function<int64_t(std::span<std::byte>)>;
  static int64_t host_random(std::span<std::byte> into);  // getrandom(2), never blocking.

  // What one turn of the loop gives at most, so that a greedy guest does not starve the others.
  static constexpr uint64_t kBytesPerTurn = 64 * 1024;
  static constexpr int64_t kRetryNs = 100'000'000;

  static loop::Result<std::unique_ptr<VirtioRng>> create(loop::EventLoop& home,
                                                         const GuestMemory& memory,
                                                         Source source = host_random);

  VirtioId id() const override { return VirtioId::kEntropy; }
  std::string_view name() const override { return "virtio-rng"; }
  uint64_t features() const override { return 0; }
  uint16_t queue_count() const override { return queues_->count(); }
  uint16_t queue_size_max(QueueIndex queue) const override {
    return queues_->runner(queue).size_max();
  }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return queues_->runner(queue).doorbell();
  }
  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override;
  void write_config(uint64_t, std::span<const uint8_t>) override {}  // There is none (5.4.4).
  void attach(VirtioTransport& transport) override { queues_->attach(transport, *this); }
  void start(const VirtioStart& start) override { queues_->start(start); }
  void stop(std::function<void()> stopped) override { queues_->stop(std::move(stopped)); }

 private:
  VirtioRng(loop::EventLoop& home, Source source) : home_(home), source_(std::move(source)) {}
  void queues_started(uint64_t features) override;
  void queues_stopping() override;
  QueueHandler::Served serve(QueueRunner& runner) override;
  // Bytes written, or -EAGAIN with nothing written.
  int64_t fill(uint64_t at_most_bytes) SKIFF_REQUIRES(home_);

  const loop::Home home_;
  const Source source_;
  std::unique_ptr<QueueSet> queues_;
  std::optional<loop::Timer> retry_ SKIFF_GUARDED_BY(home_);
  DescriptorChain chain_ SKIFF_GUARDED_BY(home_);
  bool chain_waits_ SKIFF_GUARDED_BY(home_) = false;  // chain_ is in flight: the source was dry.
};

}  // namespace skiff::devices
