// SPDX-License-Identifier: GPL-2.0-or-later
// FakeMsiSink: an interrupt controller that counts the messages it got.
//
// Thread: any. Ownership: the test's; outlives the vectors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "devices/core/msi.h"
#include "loop/mutex.h"

namespace skiff::devices {

class FakeMsiSink final : public MsiSink {
 public:
  loop::Result<std::unique_ptr<MsiVector>> create_vector() override {
    if (refuses_vectors_) return loop::Error(loop::ErrorKind::kExhausted, "No route left");
    ++vectors_;
    return std::unique_ptr<MsiVector>(new Vector(*this));
  }

  size_t sent() const {
    const loop::MutexLock lock(mutex_);
    return sent_.size();
  }
  size_t sent(const MsiMessage& message) const {
    const loop::MutexLock lock(mutex_);
    return static_cast<size_t>(std::ranges::count(sent_, message));
  }
  uint32_t vectors() const { return vectors_; }
  uint32_t configurations() const { return configurations_; }
  // From now on create_vector(), respectively configure(), fails.
  void refuse_vectors(bool refuse) { refuses_vectors_ = refuse; }
  void refuse_messages(bool refuse) { refuses_messages_ = refuse; }

 private:
  class Vector final : public MsiVector {
   public:
    explicit Vector(FakeMsiSink& sink) : sink_(sink) {}
    loop::Result<void> configure(const MsiMessage& message) override {
      if (sink_.refuses_messages_) return loop::Error(loop::ErrorKind::kIo, "Message refused");
      ++sink_.configurations_;
      const loop::MutexLock lock(sink_.mutex_);
      message_ = message;
      return {};
    }
    void trigger() override {
      const loop::MutexLock lock(sink_.mutex_);
      if (message_) sink_.sent_.push_back(*message_);
    }
    int trigger_fd() const override { return -1; }

   private:
    FakeMsiSink& sink_;
    std::optional<MsiMessage> message_;  // Under the sink's mutex.
  };

  std::atomic<bool> refuses_vectors_{false};
  std::atomic<bool> refuses_messages_{false};
  std::atomic<uint32_t> vectors_{0};
  std::atomic<uint32_t> configurations_{0};
  mutable loop::Mutex mutex_;
  std::vector<MsiMessage> sent_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
