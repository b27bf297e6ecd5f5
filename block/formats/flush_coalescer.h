// SPDX-License-Identifier: GPL-2.0-or-later
// FlushCoalescer: as few flushes for the kernel as the guest's flushes allow.
//
// A flush has to cover the writes that were complete when it was asked for (virtio 1.2, 5.2.6), so
// one that starts later serves as well. At most one is in flight; what arrives meanwhile shares
// the one after it. Thread: the channel's loop. Ownership: borrows client and requests; nothing may
// be waiting when it is destroyed.
#pragma once

#include <cstdint>

#include "block/block_channel.h"
#include "block/io_engine.h"

namespace skiff::block {

class FlushCoalescer {
 public:
  class Client {
   public:
    // Collects `io` for the engine; send_collected() follows, at the end of a batch or at once.
    virtual void collect_flush(IoRequest& io) = 0;
    virtual void send_collected() = 0;
    // What is asked for from now on fails: writes are lost. Before the requests are ended.
    virtual void flush_failed(int32_t result) = 0;
    virtual void end_flush(BlockRequest& request, int32_t result) = 0;

   protected:
    ~Client() = default;
  };

  explicit FlushCoalescer(Client& client) : client_(client) {}
  ~FlushCoalescer();
  FlushCoalescer(const FlushCoalescer&) = delete;
  FlushCoalescer& operator=(const FlushCoalescer&) = delete;

  // `request` ends in end_flush(), never inside this call.
  void add(BlockRequest& request);
  // What was collected goes to the engine now: whoever comes later needs another flush.
  void seal() { is_collected_ = false; }

 private:
  struct List {
    BlockRequest* first = nullptr;
    BlockRequest* last = nullptr;
    void append(BlockRequest& request);
  };
  static void on_io_done(IoRequest& io, int32_t result);
  void start();
  void end_all(List list, int32_t result);

  Client& client_;
  IoRequest io_;
  bool is_collected_ = false;  // `io_` waits for the end of the batch.
  List covered_;               // By the flush in flight.
  List later_;
};

}  // namespace skiff::block
