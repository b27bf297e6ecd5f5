// SPDX-License-Identifier: GPL-2.0-or-later
// PeerBackend: a host end where somebody may come, leave and come back: a unix socket, a pty.
//
// One at a time. Input that a peer sent before it left still arrives; output that was not taken
// waits for the next one.
// Thread: main loop throughout. Ownership: owns its descriptors; borrows the loop.
#pragma once

#include <optional>
#include <string>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/fd_stream.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class PeerBackend : public CharBackend {
 public:
  void start(CharSink& sink) final;
  size_t write(std::span<const uint8_t> data) final;
  void resume_input() final;

 protected:
  explicit PeerBackend(loop::EventLoop& loop);

  // Calls attach() when somebody has come. Called while nobody is there.
  virtual void wait_for_peer() = 0;
  // A duplex, non-blocking stream to the peer.
  void attach(loop::UniqueFd stream);
  loop::EventLoop& loop() { return loop_; }

 private:
  void on_input_ended();
  void check_hang_up();
  void on_peer_gone();

  loop::EventLoop& loop_;
  CharSink* sink_ = nullptr;
  std::optional<FdInput> input_;
  std::optional<FdOutput> output_;
  bool leaving_ = false;  // Until gone_bh_ has run: a stream cannot go inside its callback.
  loop::BottomHalf gone_bh_;
  loop::Timer hang_up_timer_;
};

// The server's side of `unix:PATH`. A second client waits in the listen queue until the first left.
class SocketBackend final : public PeerBackend {
 public:
  static loop::Result<std::unique_ptr<CharBackend>> create(loop::EventLoop& loop,
                                                           const std::string& path);
  ~SocketBackend() override;  // Removes the socket file.
  std::string description() const override { return "unix socket " + path_; }

 private:
  SocketBackend(loop::EventLoop& loop, loop::UniqueFd listener, std::string path);
  void wait_for_peer() override;
  void on_connection();

  std::string path_;
  loop::UniqueFd listener_;
  loop::FdWatcher watcher_;
};

// The master's side of a new pty, and a link to it when `link` is not empty. Somebody is there
// while the slave is open.
class PtyBackend final : public PeerBackend {
 public:
  static loop::Result<std::unique_ptr<CharBackend>> create(loop::EventLoop& loop,
                                                           const std::string& link);
  ~PtyBackend() override;  // Removes the link.
  std::string description() const override { return "pty " + slave_path_; }
  const std::string& slave_path() const { return slave_path_; }

 private:
  PtyBackend(loop::EventLoop& loop, loop::UniqueFd master, std::string slave_path);
  void wait_for_peer() override;
  void look_for_peer();

  std::string slave_path_;
  std::string link_;
  loop::UniqueFd master_;
  loop::Timer look_timer_;
};

}  // namespace skiff::devices
