// SPDX-License-Identifier: GPL-2.0-or-later
// NbdConnection: commands to a server over one negotiated connection, until that ends.
//
// Thread: the loop's throughout. Ownership: owns the handle; commands are borrowed until `done`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "block/nbd/nbd_handle.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"

namespace skiff::block {

class NbdConnection;

// One NBD request. The submitter owns it: it and its bytes stay in place until `done` runs.
struct NbdCommand {
  enum class Op : uint8_t { kRead, kWrite, kFlush, kTrim, kZero, kStatus };
  // Nobody knows whether the server carried it out.
  static constexpr int32_t kLost = -ENOTCONN;

  Op op = Op::kRead;
  uint32_t flags = 0;  // LIBNBD_CMD_FLAG_*.
  std::byte* bytes = nullptr;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  // The answer to kStatus: the first extent, of whatever length the server says.
  uint64_t extent_bytes = 0;
  uint32_t extent_flags = 0;  // LIBNBD_STATE_*.
  // 0, -errno as the server gave it, or kLost. Must not destroy the connection.
  void (*done)(NbdCommand& command, int32_t result) = nullptr;
  void* owner = nullptr;

  // The connection's.
  NbdConnection* connection = nullptr;
  size_t index = 0;
  int32_t result = 0;
};

class NbdConnection {
 public:
  // Called once, after everything in flight has ended with kLost; may destroy the connection.
  using LostCallback = std::function<void(const loop::Error& why)>;

  // `reply_timeout_ns`: so long without any reply, while one is due, ends the connection; 0: never.
  NbdConnection(loop::EventLoop& loop, NbdHandle handle, int64_t reply_timeout_ns,
                LostCallback lost);
  ~NbdConnection();  // With nothing in flight.
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  // Never completes inside.
  void send(NbdCommand& command);
  uint32_t in_flight() const {
    return static_cast<uint32_t>(in_flight_.size() + completed_.size());
  }
  // Ends what is in flight with kLost, says goodbye to the server, and does not call `lost`.
  void close();

 private:
  static int on_extent(void* command, const char* context, uint64_t offset_bytes, uint32_t* entries,
                       size_t entry_count, int* error);
  static int on_complete(void* command, int* error);

  int64_t issue(NbdCommand& command) SKIFF_REQUIRES(home_);
  void complete(NbdCommand& command, int32_t result);
  void on_ready(uint32_t poll_events);
  void settle();
  void deliver() SKIFF_REQUIRES(home_);
  void drop_handle() SKIFF_REQUIRES(home_);
  void check_progress();

  loop::Home home_;
  NbdHandle handle_;
  LostCallback lost_;
  std::optional<loop::Error> ended_;  // Why there will be no further reply.
  std::vector<NbdCommand*> in_flight_;
  std::vector<NbdCommand*> completed_;  // Not delivered yet.
  uint64_t replies_ = 0;
  uint64_t replies_seen_ = 0;
  const int64_t reply_timeout_ns_;
  std::unique_ptr<loop::FdWatcher> watcher_;  // Goes before the handle.
  loop::BottomHalf settle_bh_;
  loop::Timer progress_timer_;
};

}  // namespace skiff::block
