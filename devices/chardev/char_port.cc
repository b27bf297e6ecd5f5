// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/char_port.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "devices/chardev/char_backend.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::devices {
namespace {

constexpr size_t kChunkBytes = 16 * 1024;
// A guest that floods a host that takes everything must not keep the loop from its other work.
constexpr int kChunksPerTurn = 4;

}  // namespace

CharPort::CharPort(loop::EventLoop& loop, std::unique_ptr<CharBackend> backend,
                   const CharPortLimits& limits)
    : home_(loop),
      room_mark_(std::max<size_t>(limits.output_bytes / 4, 1)),
      backend_(std::move(backend)),
      flush_bh_(loop, loop::Priority::kDevice, [this] { flush(); }),
      resume_bh_(loop, loop::Priority::kDevice, [this] { backend_->resume_input(); }),
      output_(std::max<size_t>(limits.output_bytes, 1)),
      input_(std::max<size_t>(limits.input_bytes, 1)) {
  backend_->start(*this);
}

CharPort::~CharPort() {
  home_.assert_here();
  on_room_ = nullptr;  // Its owner may be gone.
  for (size_t before = pending_output_bytes(); before > 0;) {
    flush();
    const size_t after = pending_output_bytes();
    if (after >= before) break;
    before = after;
  }
}

void CharPort::set_callbacks(std::function<void()> on_input, std::function<void()> on_room) {
  home_.assert_here();
  on_input_ = std::move(on_input);
  on_room_ = std::move(on_room);
}

size_t CharPort::write(std::span<const uint8_t> data) {
  if (data.empty()) return 0;
  size_t accepted = 0;
  {
    const loop::MutexLock lock(mutex_);
    accepted = output_.push(data);
    while (!peer_present_ && accepted < data.size()) {
      const std::span<const uint8_t> rest = data.subspan(accepted);
      const size_t dropped = std::min(rest.size(), output_.size());
      output_.discard(dropped);
      counters_.discarded_bytes += dropped;
      accepted += output_.push(rest);
    }
    if (accepted < data.size()) {
      want_room_ = true;
      counters_.refused_bytes += data.size() - accepted;
    }
  }
  flush_bh_.schedule();
  return accepted;
}

size_t CharPort::read(std::span<uint8_t> into) {
  size_t count = 0;
  bool resume = false;
  {
    const loop::MutexLock lock(mutex_);
    count = input_.pop(into);
    counters_.input_bytes += count;
    // Half empty: one turn of the main loop then brings many bytes.
    if (input_stalled_ && input_.size() <= input_.capacity() / 2) {
      input_stalled_ = false;
      resume = true;
    }
  }
  if (resume) resume_bh_.schedule();
  return count;
}

size_t CharPort::readable_bytes() const {
  const loop::MutexLock lock(mutex_);
  return input_.size();
}

size_t CharPort::writable_bytes() const {
  const loop::MutexLock lock(mutex_);
  return output_.space();
}

size_t CharPort::pending_output_bytes() const {
  const loop::MutexLock lock(mutex_);
  return output_.size();
}

CharPortCounters CharPort::counters() const {
  const loop::MutexLock lock(mutex_);
  return counters_;
}

size_t CharPort::input_room() {
  const loop::MutexLock lock(mutex_);
  if (input_.space() == 0) input_stalled_ = true;
  return input_.space();
}

void CharPort::on_input(std::span<const uint8_t> data) {
  home_.assert_here();
  {
    const loop::MutexLock lock(mutex_);
    SKIFF_CHECK(input_.push(data) == data.size());  // Only the main loop fills it.
  }
  if (on_input_) on_input_();
}

void CharPort::on_writable() { flush(); }

void CharPort::on_peer_changed(bool present) {
  {
    const loop::MutexLock lock(mutex_);
    peer_present_ = present;
  }
  if (present) flush_bh_.schedule();
  // Whoever waited for the peer that has left waits no longer.
  tell_room();
}

void CharPort::flush() {
  home_.assert_here();
  std::array<uint8_t, kChunkBytes> chunk;
  for (int turn = 0; turn < kChunksPerTurn; ++turn) {
    size_t size = 0;
    {
      const loop::MutexLock lock(mutex_);
      if (peer_present_) size = output_.peek(chunk);
    }
    if (size == 0) break;
    const size_t taken = backend_->write(std::span(chunk).first(size));
    {
      // Nobody else removes bytes: write() gives up old ones only while there is no peer, and only
      // this thread changes that.
      const loop::MutexLock lock(mutex_);
      output_.discard(taken);
      counters_.output_bytes += taken;
    }
    if (taken < size) break;  // on_writable() goes on.
    if (turn == kChunksPerTurn - 1) flush_bh_.schedule();
  }
  tell_room();
}

void CharPort::tell_room() {
  home_.assert_here();
  {
    const loop::MutexLock lock(mutex_);
    if (!want_room_ || (peer_present_ && output_.space() < room_mark_)) return;
    want_room_ = false;
  }
  if (on_room_) on_room_();
}

}  // namespace skiff::devices
