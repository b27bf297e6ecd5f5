// SPDX-License-Identifier: GPL-2.0-or-later
// StreamBackend: input from one descriptor, output to another; either may be missing. Stdio, files.
//
// The end of the input is the end of the input, no more. When the output breaks (reader gone, disk
// full), that is said once and what follows is discarded: the guest goes on.
// Thread: main loop throughout. Ownership: owns the descriptors it was given; borrows the loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "devices/chardev/byte_ring.h"
#include "devices/chardev/char_backend.h"
#include "devices/chardev/escape_filter.h"
#include "devices/chardev/fd_stream.h"
#include "devices/chardev/raw_terminal.h"

namespace skiff::devices {

class StreamBackend final : public CharBackend {
 public:
  struct Options {
    std::string description;
    std::optional<HostFd> input;
    std::optional<HostFd> output;
    std::unique_ptr<RawTerminal> terminal;  // Held while the backend lives.
    // Not null: Ctrl-A is the escape key and its commands go here (all but Ctrl-A h, which prints
    // `help`). It must not destroy the backend.
    std::function<void(char key)> on_escape;
    std::string help;
  };
  StreamBackend(loop::EventLoop& loop, Options options);

  void start(CharSink& sink) override;
  size_t write(std::span<const uint8_t> data) override;
  void resume_input() override;
  std::string description() const override { return description_; }

 private:
  size_t room_for_typed();
  void on_typed(std::span<const uint8_t> data);
  void on_command(char key);
  void on_input_ended(int os_error);
  void deliver();
  void discard_output(int os_error);

  std::string description_;
  std::unique_ptr<RawTerminal> terminal_;
  std::function<void(char)> on_escape_;
  std::string help_;
  std::optional<EscapeFilter> filter_;
  // Read ahead of a guest that takes no input, so that Ctrl-A x still reaches us.
  ByteRing typed_ahead_;
  std::optional<FdInput> input_;
  std::optional<FdOutput> output_;
  bool output_broken_ = false;
  CharSink* sink_ = nullptr;
};

}  // namespace skiff::devices
