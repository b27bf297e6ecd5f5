// SPDX-License-Identifier: GPL-2.0-or-later
// FakeVirtioDevice: a virtio device without queues behind it, that remembers what its transport
// told it and stops when the test says so.
//
// Thread: as VirtioDevice; what the test asks, from any. Ownership: the test's; outlives its
// transport's use of it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_notifier.h"
#include "loop/mutex.h"

namespace skiff::devices {

class FakeVirtioDevice final : public VirtioDevice {
 public:
  struct Options {
    VirtioId id = VirtioId::kBlock;
    uint64_t features = 0;
    uint16_t queues = 2;
    uint16_t queue_size_max = 256;
  };
  static constexpr size_t kConfigSizeBytes = 24;

  explicit FakeVirtioDevice(const Options& options) : options_(options) {
    for (uint16_t i = 0; i < options.queues; ++i)
      doorbells_.push_back(loop::EventNotifier::create().value());
    for (size_t i = 0; i < config_.size(); ++i) config_[i] = static_cast<uint8_t>(i + 1);
  }
  FakeVirtioDevice() : FakeVirtioDevice(Options{}) {}

  VirtioId id() const override { return options_.id; }
  std::string_view name() const override { return "fake"; }
  uint64_t features() const override { return options_.features; }
  uint16_t queue_count() const override { return options_.queues; }
  uint16_t queue_size_max(QueueIndex /*queue*/) const override { return options_.queue_size_max; }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return doorbells_.at(queue);
  }

  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override {
    const loop::MutexLock lock(mutex_);
    for (size_t i = 0; i < data.size(); ++i) {
      const uint64_t at = offset_bytes + i;
      data[i] = at < config_.size() ? config_[at] : uint8_t{0};
    }
  }
  void write_config(uint64_t offset_bytes, std::span<const uint8_t> data) override {
    const loop::MutexLock lock(mutex_);
    for (size_t i = 0; i < data.size(); ++i)
      if (offset_bytes + i < config_.size()) config_[offset_bytes + i] = data[i];
  }

  void attach(VirtioTransport& transport) override { transport_ = &transport; }

  void start(const VirtioStart& start) override {
    {
      const loop::MutexLock lock(mutex_);
      SKIFF_CHECK(!is_running_ && !stopped_);
      is_running_ = true;
      starts_.push_back(start);
    }
    if (on_start_) on_start_();
  }

  void stop(std::function<void()> stopped) override {
    {
      const loop::MutexLock lock(mutex_);
      SKIFF_CHECK(is_running_ && !stopped_);
      ++stops_;
      is_running_ = false;
      if (holds_stops_) {
        stopped_ = std::move(stopped);
        return;
      }
    }
    stopped();
  }

  void kick(QueueIndex queue) override {
    const loop::MutexLock lock(mutex_);
    kicks_.push_back(queue);
    doorbells_.at(queue).notify();
  }
  void interrupt_target_changed(QueueIndex queue, std::optional<MsiMessage> message) override {
    const loop::MutexLock lock(mutex_);
    targets_[queue] = message;
  }
  void reset_queue(QueueIndex queue, std::function<void()> done) override {
    {
      const loop::MutexLock lock(mutex_);
      queue_resets_.push_back(queue);
      if (holds_stops_) {
        queue_reset_ = std::move(done);
        return;
      }
    }
    done();
  }
  void start_queue(QueueIndex queue, const QueueLayout& layout) override {
    const loop::MutexLock lock(mutex_);
    queue_starts_.emplace_back(queue, layout);
  }

  // The test's side.
  VirtioTransport& transport() { return *transport_; }
  // Runs inside start(), on its thread. Set before the device is used.
  void set_on_start(std::function<void()> on_start) { on_start_ = std::move(on_start); }
  // From now on a stop ends only with finish_stop().
  void hold_stops() {
    const loop::MutexLock lock(mutex_);
    holds_stops_ = true;
  }
  // False when no stop is being held.
  bool finish_stop() {
    std::function<void()> stopped;
    {
      const loop::MutexLock lock(mutex_);
      stopped.swap(stopped_);
    }
    if (!stopped) return false;
    stopped();
    return true;
  }
  // The same of the latest reset of a queue.
  bool finish_queue_reset() {
    std::function<void()> done;
    {
      const loop::MutexLock lock(mutex_);
      done.swap(queue_reset_);
    }
    if (!done) return false;
    done();
    return true;
  }
  std::vector<QueueIndex> kicks() const {
    const loop::MutexLock lock(mutex_);
    return kicks_;
  }
  std::vector<QueueIndex> queue_resets() const {
    const loop::MutexLock lock(mutex_);
    return queue_resets_;
  }
  std::vector<std::pair<QueueIndex, QueueLayout>> queue_starts() const {
    const loop::MutexLock lock(mutex_);
    return queue_starts_;
  }
  // What the transport said last of the queue's interrupts.
  std::optional<MsiMessage> target(QueueIndex queue) const {
    const loop::MutexLock lock(mutex_);
    const auto found = targets_.find(queue);
    return found == targets_.end() ? std::nullopt : found->second;
  }
  std::vector<VirtioStart> starts() const {
    const loop::MutexLock lock(mutex_);
    return starts_;
  }
  uint32_t stops() const {
    const loop::MutexLock lock(mutex_);
    return stops_;
  }
  bool is_running() const {
    const loop::MutexLock lock(mutex_);
    return is_running_;
  }

 private:
  const Options options_;
  std::vector<loop::EventNotifier> doorbells_;
  VirtioTransport* transport_ = nullptr;
  std::function<void()> on_start_;
  mutable loop::Mutex mutex_;
  std::array<uint8_t, kConfigSizeBytes> config_ SKIFF_GUARDED_BY(mutex_){};
  std::vector<VirtioStart> starts_ SKIFF_GUARDED_BY(mutex_);
  uint32_t stops_ SKIFF_GUARDED_BY(mutex_) = 0;
  bool is_running_ SKIFF_GUARDED_BY(mutex_) = false;
  bool holds_stops_ SKIFF_GUARDED_BY(mutex_) = false;
  std::function<void()> stopped_ SKIFF_GUARDED_BY(mutex_);
  std::function<void()> queue_reset_ SKIFF_GUARDED_BY(mutex_);
  std::vector<QueueIndex> kicks_ SKIFF_GUARDED_BY(mutex_);
  std::vector<QueueIndex> queue_resets_ SKIFF_GUARDED_BY(mutex_);
  std::vector<std::pair<QueueIndex, QueueLayout>> queue_starts_ SKIFF_GUARDED_BY(mutex_);
  std::map<QueueIndex, std::optional<MsiMessage>> targets_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
