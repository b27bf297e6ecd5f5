// SPDX-License-Identifier: GPL-2.0-or-later
// CharBackend: the host's end of a character device, such as a terminal, a file or a socket.
//
// It holds no bytes of its own that matter: output that the host does not take stays with the
// caller, and input is read from the host only when the sink has room for it, so nothing is lost on
// either way and the kernel's buffers hold back whoever is on the other side.
// Thread: main loop throughout, in both directions.
// Ownership: a CharPort owns its backend and is its sink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace skiff::devices {

// What a backend tells its owner. Never called from inside CharBackend::write().
class CharSink {
 public:
  virtual size_t input_room() = 0;  // Bytes it takes now. After 0, resume_input() follows.
  virtual void on_input(std::span<const uint8_t> data) = 0;  // At most input_room() bytes.
  virtual void on_writable() = 0;                            // After a short write.
  // Nobody is there to read (no client, nobody opened the pty), or somebody came. At first: there.
  virtual void on_peer_changed(bool present) = 0;

 protected:
  ~CharSink() = default;
};

class CharBackend {
 public:
  virtual ~CharBackend() = default;
  // Once, before anything else.
  virtual void start(CharSink& sink) = 0;
  // Takes what the host takes without waiting and returns how many bytes that was; when not all,
  // on_writable() follows. A broken host side takes everything, to nowhere.
  virtual size_t write(std::span<const uint8_t> data) = 0;
  // The sink has room again.
  virtual void resume_input() = 0;
  // For people: "pty /dev/pts/3".
  virtual std::string description() const = 0;
};

}  // namespace skiff::devices
