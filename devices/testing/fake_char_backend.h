// SPDX-License-Identifier: GPL-2.0-or-later
// FakeCharBackend: a host that reads and types as much as the test tells it to.
//
// Thread: the test's. Ownership: the CharPort's; the test keeps a pointer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

#include "devices/chardev/char_backend.h"

namespace skiff::devices {

class FakeCharBackend final : public CharBackend {
 public:
  void start(CharSink& sink) override { sink_ = &sink; }

  size_t write(std::span<const uint8_t> data) override {
    const size_t taken = std::min(data.size(), room_);
    if (room_ != kUnlimited) room_ -= taken;
    output_.append(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(taken));
    return taken;
  }

  void resume_input() override {
    ++resumes_;
    deliver();
  }
  std::string description() const override { return "a fake"; }

  // The host takes this many bytes more and then no more.
  void set_room(size_t bytes) { room_ = bytes; }
  // The host took something out of the way.
  void give_room(size_t bytes = kUnlimited) {
    room_ = bytes;
    sink_->on_writable();
  }
  void set_peer(bool present) { sink_->on_peer_changed(present); }
  // Delivered as far as there is room, the rest when there is room again.
  void type(std::string_view text) {
    typed_ += text;
    deliver();
  }

  const std::string& output() const { return output_; }
  size_t waiting_input() const { return typed_.size(); }
  int resumes() const { return resumes_; }

 private:
  static constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

  void deliver() {
    while (!typed_.empty()) {
      const size_t room = std::min(sink_->input_room(), typed_.size());
      if (room == 0) return;
      const std::string piece = typed_.substr(0, room);
      typed_.erase(0, room);
      sink_->on_input(std::span(reinterpret_cast<const uint8_t*>(piece.data()), piece.size()));
    }
  }

  CharSink* sink_ = nullptr;
  size_t room_ = kUnlimited;
  std::string output_;
  std::string typed_;
  int resumes_ = 0;
};

}  // namespace skiff::devices
