// SPDX-License-Identifier: GPL-2.0-or-later
// NbdLoad: writes that can be told apart, and what of them must be there in the end.
//
// Each block is written again and again with the next version; every now and then everything is
// flushed. Thread: made, asked and destroyed on the test's; works on its loop's. Ownership: borrows
// image and loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::block {

class NbdLoad {
 public:
  static constexpr size_t kBlockBytes = 4096;
  struct Options {
    uint64_t first_block = 0;
    uint64_t blocks = 64;
    uint32_t depth = 16;
    uint32_t writes = 2000;
    uint32_t writes_per_flush = 32;  // 0: no flush at all.
  };

  NbdLoad(BlockBackend& image, loop::EventLoop& loop, const Options& options);
  ~NbdLoad();
  NbdLoad(const NbdLoad&) = delete;
  NbdLoad& operator=(const NbdLoad&) = delete;

  void start();
  void wait_for_writes(uint32_t acknowledged);
  // All writes and a last flush have ended, and the channel is gone.
  void wait();
  uint32_t write_errors();
  uint32_t flush_errors();
  // How many blocks of the disk are not what was last acknowledged.
  uint32_t wrong_blocks(std::span<const std::byte> disk);

 private:
  struct Slot {
    NbdLoad* load = nullptr;
    uint64_t lane = 0;
    uint64_t block = 0;
    uint64_t version = 0;
    std::vector<std::byte> bytes;
    iovec iov = {};
    BlockRequest request;
  };

  static void on_written(BlockRequest& request, int32_t result);
  static void on_flushed(BlockRequest& request, int32_t result);
  void submit(BlockRequest& request);
  void next(Slot& slot);
  void flush();
  void end_when_idle();
  void end();

  BlockBackend& image_;
  loop::EventLoop& loop_;
  const Options options_;
  // The loop's.
  std::unique_ptr<BlockChannel> channel_;
  std::vector<std::unique_ptr<Slot>> slots_;
  BlockRequest flush_;
  std::vector<uint64_t> acknowledged_;  // Versions, by block.
  std::vector<uint64_t> issued_;
  uint32_t started_ = 0;
  uint32_t since_flush_ = 0;
  uint32_t writing_ = 0;
  bool flushing_ = false;
  bool last_flush_ = false;

  loop::Mutex mutex_;
  loop::ConditionVariable changed_;
  uint32_t writes_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint32_t write_errors_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint32_t flush_errors_ SKIFF_GUARDED_BY(mutex_) = 0;
  bool ended_ SKIFF_GUARDED_BY(mutex_) = false;
};

}  // namespace skiff::block
