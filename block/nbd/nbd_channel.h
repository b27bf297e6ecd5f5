// SPDX-License-Identifier: GPL-2.0-or-later
// NbdChannel: one loop's requests to an NBD image.
//
// With a connection of its own, reads and writes go straight to the server and back; the rest, and
// everything when there is none, takes the way over the home loop. Thread: the loop's throughout.
// Ownership: borrows the home; destroyed when nothing is in flight.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_handle.h"
#include "block/nbd/nbd_home.h"
#include "block/nbd/nbd_job.h"
#include "loop/event_loop.h"
#include "loop/home.h"

namespace skiff::block {

class NbdChannel final : public BlockChannel {
 public:
  struct Options {
    std::string name;  // For messages.
    int64_t reply_timeout_ns = 0;
  };

  NbdChannel(NbdHome& home, loop::EventLoop& loop, Options options);
  ~NbdChannel() override;
  NbdChannel(const NbdChannel&) = delete;
  NbdChannel& operator=(const NbdChannel&) = delete;

  void submit(std::span<BlockRequest* const> batch) override;
  uint32_t in_flight() const override { return in_flight_; }
  loop::EventLoop& loop() const { return home_.loop(); }
  // Has it a connection of its own at the moment? For tests.
  bool has_own_connection() const { return fast_ != nullptr && !draining_; }

  // The home's side: a job that it was given has ended, ...
  static void on_answer(loop::Message& message);
  // ... there is a connection, ...
  void adopt_connection(NbdHandle handle);
  // ... and the server may have changed: nothing more may go to it from here.
  void close_fast_path();

 private:
  static void on_fast_done(NbdJob& job, int32_t result);
  // 0, or the -errno the request deserves before anything was tried.
  int32_t check(const BlockRequest& request) const;
  bool may_go_fast(const NbdJob& job) const;
  void start(BlockRequest& request) SKIFF_REQUIRES(home_);
  void fast_done(NbdJob& job, int32_t result);
  void fast_lost(const loop::Error& why);
  void drained();
  void finish(NbdJob& job, int32_t result) SKIFF_REQUIRES(home_);
  void finish_later(BlockRequest& request, int32_t result) SKIFF_REQUIRES(home_);
  void run_finished();

  loop::Home home_;
  NbdHome& nbd_;
  const Options options_;
  std::shared_ptr<NbdChannel*> token_;  // Shared with news on their way here, see ChannelToken.
  uint64_t id_ = 0;
  std::unique_ptr<NbdConnection> fast_;
  bool draining_ = false;
  uint32_t in_flight_ = 0;
  std::vector<std::unique_ptr<NbdJob>> spare_jobs_ SKIFF_GUARDED_BY(home_);
  // Requests that were over before they began.
  std::vector<BlockRequest*> finished_ SKIFF_GUARDED_BY(home_);
  loop::BottomHalf finished_bh_;
  loop::BottomHalf drained_bh_;
  loop::Timer drain_timer_;
};

}  // namespace skiff::block
