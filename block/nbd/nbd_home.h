// SPDX-License-Identifier: GPL-2.0-or-later
// NbdHome: the one loop that negotiates with an image's server, waits for it when it is gone, and
// makes good what it may have forgotten.
//
// The home has a connection of its own. It carries all flushes, and everything of the channels that
// have none; channels get theirs from here when the server offers several. Why flushes go this way,
// and what happens between a lost connection and the next one:
// docs/decisions/0008-nbd-reconnect.md. Thread: the home loop's, unless said otherwise. Ownership:
// borrows loop and pool; channels leave before it is closed, and it is destroyed on its loop after
// close() has called back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_connector.h"
#include "block/nbd/nbd_export.h"
#include "block/nbd/nbd_job.h"
#include "block/nbd/nbd_negotiation.h"
#include "block/nbd/nbd_url.h"
#include "block/nbd/unflushed_writes.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/home.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class NbdHome {
 public:
  struct Options {
    NbdAddress address;
    std::string name;  // For messages.
    bool read_only = false;
    int64_t reconnect_delay_ns = 0;  // Requests wait so long for the server, then fail with -EIO.
    int64_t connect_timeout_ns = 0;
    int64_t reply_timeout_ns = 0;  // 0: a server may think as long as it likes.
  };
  struct Opened {
    NbdExport facts;
    std::vector<std::byte> first_bytes;  // At most 4096.
  };
  using OpenCallback = std::function<void(loop::Result<Opened>)>;
  // The channel it leads to; empty when that has gone. Looked into on the channel's loop only,
  // where it is also destroyed. Shared, so that news under way find out.
  using ChannelToken = std::weak_ptr<NbdChannel*>;

  NbdHome(loop::EventLoop& loop, loop::WorkerPool& pool, loop::EventNotifier cancel,
          Options options);
  ~NbdHome();
  NbdHome(const NbdHome&) = delete;
  NbdHome& operator=(const NbdHome&) = delete;

  void open(OpenCallback opened);
  // With no channel left.
  void close(std::function<void()> closed);

  // Any thread, after open. The job comes back by NbdChannel::on_answer() on its channel's loop.
  void submit(NbdJob& job);
  // Any thread: a channel comes, and goes. It will be offered a connection, if there are to be any.
  uint64_t enroll(loop::EventLoop& loop, ChannelToken channel);
  void leave(uint64_t channel);
  // Any thread: the channel's connection is closed and nothing of it is under way.
  void post_fast_path_closed(uint64_t channel);
  // Any thread: the channel's connection has ended, it would like another one.
  void post_want_connection(uint64_t channel);
  // Any thread: it is time to flush.
  void post_wish_flush();
  // Any thread.
  UnflushedWrites& unflushed() { return unflushed_; }
  // Any thread, constant once open.
  const NbdExport& facts() const { return facts_; }

 private:
  enum class State : uint8_t { kOpening, kUp, kDown, kClosed };
  struct Door {
    uint64_t id = 0;
    loop::EventLoop* loop = nullptr;
    ChannelToken channel;
  };

  // nbd_home.cc: requests.
  static void on_job(loop::Message& message);
  static void on_job_done(NbdJob& job, int32_t result);
  void take(NbdJob& job) SKIFF_REQUIRES(home_);
  void job_done(NbdJob& job, int32_t result);
  void answer(NbdJob& job, int32_t result);
  void flush_for_room() SKIFF_REQUIRES(home_);
  void on_room_flush_done(int32_t result);
  void made_progress() SKIFF_REQUIRES(home_);
  void read_first_bytes() SKIFF_REQUIRES(home_);
  void finish_open(loop::Result<Opened> opened) SKIFF_REQUIRES(home_);

  // nbd_home_reconnect.cc: the life of the connections.
  void connect();
  void negotiated(loop::Result<NbdHandle> handle);
  loop::Result<void> adopt(NbdHandle handle) SKIFF_REQUIRES(home_);
  void connection_lost(const loop::Error& why);
  void retry_later(const loop::Error& why) SKIFF_REQUIRES(home_);
  void outage_too_long();
  void fail_waiting() SKIFF_REQUIRES(home_);
  void begin_recovery() SKIFF_REQUIRES(home_);
  void replay_when_ready() SKIFF_REQUIRES(home_);
  void replay_next() SKIFF_REQUIRES(home_);
  void replay_done(int32_t result);
  void come_up() SKIFF_REQUIRES(home_);
  // Calls `use` on the channel's loop; false when it has left.
  bool post_to_channel(uint64_t id, std::function<void(NbdChannel&)> use);
  void offer_connections();
  void offered(uint64_t id, loop::Result<NbdHandle> handle);

  loop::Home home_;
  const Options options_;
  NbdConnector connector_;
  UnflushedWrites unflushed_;
  NbdExport facts_;
  State state_ SKIFF_GUARDED_BY(home_) = State::kOpening;
  OpenCallback opened_;
  std::vector<std::byte> first_bytes_;

  std::unique_ptr<NbdNegotiation> negotiation_;
  std::unique_ptr<NbdConnection> connection_;
  std::deque<NbdJob*> parked_ SKIFF_GUARDED_BY(home_);   // Until there is a connection.
  std::deque<NbdJob*> stalled_ SKIFF_GUARDED_BY(home_);  // Until a flush has made room.
  bool room_flush_in_flight_ SKIFF_GUARDED_BY(home_) = false;
  uint64_t room_flush_mark_ SKIFF_GUARDED_BY(home_) = 0;
  NbdCommand
      own_command_;  // The flush for room, the first read, or a replayed write: one at a time.

  uint32_t attempts_ SKIFF_GUARDED_BY(home_) = 0;  // Since the server last did something for us.
  bool in_outage_ SKIFF_GUARDED_BY(home_) = false;
  bool failing_ SKIFF_GUARDED_BY(home_) = false;        // The outage is longer than anybody waits.
  std::set<uint64_t> given_ SKIFF_GUARDED_BY(home_);    // Channels that have a connection.
  std::set<uint64_t> closing_ SKIFF_GUARDED_BY(home_);  // Those of them that must give it up.
  size_t replay_index_ SKIFF_GUARDED_BY(home_) = 0;
  uint64_t replay_bytes_ SKIFF_GUARDED_BY(home_) = 0;  // Of the present one.
  bool replaying_ SKIFF_GUARDED_BY(home_) = false;
  bool replaying_flush_ SKIFF_GUARDED_BY(home_) = false;
  uint64_t replay_mark_ SKIFF_GUARDED_BY(home_) = 0;
  loop::Timer retry_timer_;
  loop::Timer outage_timer_;

  // Connections for channels, one at a time.
  bool offers_connections_ SKIFF_GUARDED_BY(home_) = false;  // The server of now.
  std::deque<uint64_t> wishes_ SKIFF_GUARDED_BY(home_);
  std::unique_ptr<NbdNegotiation> offer_;
  uint32_t failed_offers_ SKIFF_GUARDED_BY(home_) = 0;
  loop::Timer offer_timer_;

  loop::Mutex doors_mutex_;
  std::vector<Door> doors_ SKIFF_GUARDED_BY(doors_mutex_);
  uint64_t next_door_ SKIFF_GUARDED_BY(doors_mutex_) = 1;
};

}  // namespace skiff::block
