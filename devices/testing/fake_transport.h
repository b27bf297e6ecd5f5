// SPDX-License-Identifier: GPL-2.0-or-later
// FakeTransport: counts what a virtio device asks of its transport.
//
// Thread: any. Ownership: the test's; outlives the device.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "devices/virtio/virtio_device.h"
#include "loop/check.h"

namespace skiff::devices {

class FakeTransport final : public VirtioTransport {
 public:
  static constexpr size_t kQueues = 256;

  void interrupt_queue(QueueIndex queue) override {
    SKIFF_CHECK(queue < kQueues);
    queue_interrupts_[queue].fetch_add(1);
  }
  void interrupt_config() override { config_interrupts_.fetch_add(1); }
  void need_reset() override { resets_.fetch_add(1); }
  void set_doorbell_path(QueueIndex queue, DoorbellPath path) override {
    SKIFF_CHECK(queue < kQueues);
    paths_[queue].store(path);
  }

  uint32_t interrupts(QueueIndex queue = 0) const { return queue_interrupts_[queue].load(); }
  uint32_t config_interrupts() const { return config_interrupts_.load(); }
  DoorbellPath doorbell_path(QueueIndex queue = 0) const { return paths_[queue].load(); }
  bool reset_requested() const { return resets_.load() != 0; }
  uint32_t reset_requests() const { return resets_.load(); }

 private:
  std::array<std::atomic<uint32_t>, kQueues> queue_interrupts_{};
  std::array<std::atomic<DoorbellPath>, kQueues> paths_{};  // kKernel.
  std::atomic<uint32_t> config_interrupts_{0};
  std::atomic<uint32_t> resets_{0};
};

}  // namespace skiff::devices
