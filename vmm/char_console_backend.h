// SPDX-License-Identifier: GPL-2.0-or-later
// CharConsoleBackend: any host end of a character device (stdio, pty, socket, file) behind a
// virtio-console port.
//
// Thread: main loop throughout. Ownership: owns the character backend; outlives the console it is
// attached to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/chardev/char_backend.h"
#include "devices/virtio/console/console_backend.h"

namespace skiff::vmm {

class CharConsoleBackend final : public devices::ConsoleBackend, private devices::CharSink {
 public:
  explicit CharConsoleBackend(std::unique_ptr<devices::CharBackend> host);

  void attach(Listener* listener) override;
  size_t write(std::span<const std::byte> bytes) override;
  size_t read(std::span<std::byte> into) override;
  bool is_open() const override { return is_open_; }
  void guest_changed(bool) override {}

 private:
  size_t input_room() override { return input_.size() - input_bytes_; }
  void on_input(std::span<const uint8_t> data) override;
  void on_writable() override;
  void on_peer_changed(bool present) override;

  std::unique_ptr<devices::CharBackend> host_;
  Listener* listener_ = nullptr;
  bool is_started_ = false;
  bool is_open_ = true;
  // One host read ahead of the guest: a character backend pushes, a console port pulls.
  std::array<uint8_t, 1024> input_;
  size_t input_bytes_ = 0;
};

}  // namespace skiff::vmm
