// SPDX-License-Identifier: GPL-2.0-or-later
// CharPort: the guest's side of a character device: two bounded rings that vCPU threads and
// IOThreads fill and empty, while the main loop carries the bytes to and from the host.
//
// A guest that writes faster than the host reads finds the ring full and is told when there is room
// again; the VMM never waits. With nobody on the other side (no client on the socket, the pty not
// open) the newest bytes wait in the ring for whoever comes and the guest is not held back.
// Thread: write(), read(), counters and sizes from any; the rest, and both callbacks, main loop.
// Ownership: owns the backend; borrows the loop. The front end's callbacks must stay valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "devices/chardev/byte_ring.h"
#include "devices/chardev/char_backend.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/mutex.h"

namespace skiff::devices {

struct CharPortLimits {
  size_t output_bytes = 64 * 1024;
  size_t input_bytes = 4 * 1024;
};

struct CharPortCounters {
  uint64_t output_bytes = 0;     // Taken by the host.
  uint64_t input_bytes = 0;      // Taken by the guest.
  uint64_t refused_bytes = 0;    // Offered by the guest while the ring was full.
  uint64_t discarded_bytes = 0;  // Oldest output given up while nobody was there to read it.
};

class CharPort final : private CharSink {
 public:
  CharPort(loop::EventLoop& loop, std::unique_ptr<CharBackend> backend,
           const CharPortLimits& limits = {});
  // Offers the host what is left, without waiting for it.
  ~CharPort();
  CharPort(const CharPort&) = delete;
  CharPort& operator=(const CharPort&) = delete;

  // `on_input`: there is something to read. `on_room`: after a write that was cut short, a good
  // part of the ring is free again. Both on the main loop with no lock held. Before the guest runs.
  void set_callbacks(std::function<void()> on_input, std::function<void()> on_room);

  // Bytes accepted; the rest is still the caller's, and on_room follows.
  size_t write(std::span<const uint8_t> data);
  // Bytes that had arrived; 0 when none had, and on_input follows.
  size_t read(std::span<uint8_t> into);

  size_t readable_bytes() const;
  size_t writable_bytes() const;
  // What the host has not taken yet: at the end of a run, turn the loop until it is 0 or time is
  // up.
  size_t pending_output_bytes() const;
  CharPortCounters counters() const;
  std::string description() const { return backend_->description(); }

 private:
  size_t input_room() override;
  void on_input(std::span<const uint8_t> data) override;
  void on_writable() override;
  void on_peer_changed(bool present) override;

  void flush();
  void tell_room();

  const loop::Home home_;
  const size_t room_mark_;  // Free bytes worth telling the front end of.
  std::unique_ptr<CharBackend> backend_;
  std::function<void()> on_input_ SKIFF_GUARDED_BY(home_);
  std::function<void()> on_room_ SKIFF_GUARDED_BY(home_);
  loop::BottomHalf flush_bh_;
  loop::BottomHalf resume_bh_;

  mutable loop::Mutex mutex_;
  ByteRing output_ SKIFF_GUARDED_BY(mutex_);
  ByteRing input_ SKIFF_GUARDED_BY(mutex_);
  bool want_room_ SKIFF_GUARDED_BY(mutex_) = false;
  bool input_stalled_ SKIFF_GUARDED_BY(mutex_) = false;
  bool peer_present_ SKIFF_GUARDED_BY(mutex_) = true;
  CharPortCounters counters_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
