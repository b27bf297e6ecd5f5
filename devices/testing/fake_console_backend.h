// SPDX-License-Identifier: GPL-2.0-or-later
// FakeConsoleBackend: a host side made of strings, with as little room as a test wants.
//
// Thread: the console's home loop. Ownership: the test's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/virtio/console/console_backend.h"

namespace skiff::devices {

class FakeConsoleBackend final : public ConsoleBackend {
 public:
  void attach(Listener* listener) override { listener_ = listener; }

  size_t write(std::span<const std::byte> bytes) override {
    ++write_calls;
    const size_t taken = std::min(bytes.size(), room_);
    output.append(reinterpret_cast<const char*>(bytes.data()), taken);
    if (room_ != kUnlimited) room_ -= taken;
    return taken;
  }
  size_t read(std::span<std::byte> into) override {
    ++read_calls;
    const size_t given = std::min(into.size(), input_.size());
    std::memcpy(into.data(), input_.data(), given);
    input_.erase(0, given);
    if (input_.empty() && close_after_input_) set_open(false);
    return given;
  }
  bool is_open() const override { return open_; }
  void guest_changed(bool open) override { guest_changes.push_back(open); }

  // What the host does.
  void give_input(std::string_view text) {
    input_ += text;
    if (listener_ != nullptr) listener_->input_ready();
  }
  void set_room(size_t bytes) {
    room_ = bytes;
    if (listener_ != nullptr) listener_->output_ready();
  }
  void set_open(bool open) {
    if (std::exchange(open_, open) != open && listener_ != nullptr) listener_->host_changed();
  }
  void end_input() {
    close_after_input_ = true;
    if (listener_ != nullptr) listener_->input_ready();
  }
  size_t input_left() const { return input_.size(); }

  static constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();
  std::string output;
  std::vector<bool> guest_changes;
  size_t write_calls = 0;
  size_t read_calls = 0;

 private:
  Listener* listener_ = nullptr;
  std::string input_;
  size_t room_ = kUnlimited;
  bool open_ = true;
  bool close_after_input_ = false;
};

}  // namespace skiff::devices
