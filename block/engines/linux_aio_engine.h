// SPDX-License-Identifier: GPL-2.0-or-later
// LinuxAioEngine: requests by io_submit(2), a whole batch to one system call; completions by an
// eventfd that the loop watches, and read from the context's ring without another system call.
//
// For O_DIRECT files only: on others io_submit() does the I/O itself, and blocks. Reads ask for
// RWF_NOWAIT, and those that would have blocked go to the pool; writes do not, since a write that
// has to update a time stamp counts as one that would. What the kernel's aio cannot do (fallocate,
// before Linux 4.18 also flush) goes to the pool too. Requests that find the kernel's queue full
// wait for a completion, in order.
// Thread: the home loop's throughout. Ownership: owns the context; borrows loop and pool.
#pragma once

#include <linux/aio_abi.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "block/engines/aio_context.h"
#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class LinuxAioEngine final : public EngineBase {
 public:
  // The most that are with the kernel at once.
  static constexpr uint32_t kDepth = 256;

  // kUnsupported without O_DIRECT; else as AioContext::create().
  static loop::Result<std::unique_ptr<IoEngine>> create(const IoTarget& target,
                                                        loop::EventLoop& loop,
                                                        loop::WorkerPool& pool);

  std::string_view name() const override { return engine_name(IoEngineKind::kLinuxAio); }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  struct Slot {
    iocb control = {};
    IoRequest* request = nullptr;
    Slot* next_free = nullptr;
  };
  enum class Pumped : uint8_t { kAll, kKernelIsFull };

  LinuxAioEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool,
                 AioContext context, loop::EventNotifier notifier);

  void pump() SKIFF_REQUIRES(home_);
  Pumped submit_slots(std::span<iocb* const> batch) SKIFF_REQUIRES(home_);
  void prepare(Slot& slot, IoRequest& request) SKIFF_REQUIRES(home_);
  bool belongs_in_pool(const IoRequest& request) const SKIFF_REQUIRES(home_);
  // The kernel would not take the slot's request. True: try the same slot once more.
  bool refused(Slot& slot, int32_t error) SKIFF_REQUIRES(home_);
  void put_back(std::span<iocb* const> batch) SKIFF_REQUIRES(home_);
  void release(Slot& slot) SKIFF_REQUIRES(home_);
  void reap();
  void on_event(const io_event& event, RequestList& finished) SKIFF_REQUIRES(home_);

  loop::WorkerPool& pool_;
  const AioContext context_;
  const loop::EventNotifier notifier_;
  std::array<Slot, kDepth> slots_ SKIFF_GUARDED_BY(home_);
  Slot* free_slots_ SKIFF_GUARDED_BY(home_) = nullptr;
  uint32_t in_kernel_ SKIFF_GUARDED_BY(home_) = 0;
  RequestList waiting_ SKIFF_GUARDED_BY(home_);
  bool no_wait_ SKIFF_GUARDED_BY(home_) = true;      // Until the file says that it cannot.
  bool can_flush_ SKIFF_GUARDED_BY(home_) = true;    // Until the kernel says that it cannot.
  bool completing_ SKIFF_GUARDED_BY(home_) = false;  // reap() submits what comes meanwhile.
  loop::BottomHalf reap_bh_;
  loop::NotifierWatch watch_;
};

}  // namespace skiff::block
