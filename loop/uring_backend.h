// SPDX-License-Identifier: GPL-2.0-or-later
// UringBackend: a loop's events through one io_uring, which carries its disk I/O too.
//
// Descriptors are watched by one-shot POLL_ADDs, armed anew after each report: that makes them
// level-triggered, which multishot polls are not. Eventfds are read by the ring itself. A request
// in the kernel has a slot that belongs to this backend, with the buffer it writes to; when the
// watcher goes first, the slot waits for its CQE alone.
// Thread: wake() from any; the rest on the loop's. Ownership: owns ring, wake eventfd and slots.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "loop/loop_backend.h"
#include "loop/ring.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

class UringBackend final : public LoopBackend {
 public:
  UringBackend(LoopState& state, std::unique_ptr<Ring> ring, UniqueFd wake_fd);
  ~UringBackend() override;

  void bind() override;
  void poll(int64_t timeout_ns) override;
  void wake() override;
  void end_turn(int64_t delay_ns) override;
  void arm(Source& source) override;
  void disarm(Source& source) override;
  Ring* ring() override { return ring_.get(); }
  io_uring_sqe* next_sqe(RingOperation& operation) override;
  void submit() override;
  bool has_news() const override;
  bool has_unsubmitted() const override;
  bool has_operations() const override { return operations_in_flight_ != 0; }
  bool has_watches() const override { return slots_.size() != free_slots_.size(); }

 private:
  // One POLL_ADD or READ that the kernel has. Its address is the request's name.
  struct alignas(8) Slot {
    Source* source = nullptr;  // Null: nobody is interested any more.
    uint32_t wanted = 0;
    bool in_flight = false;
    uint64_t counter = 0;   // What a READ writes to.
    int give_back_fd = -1;  // The eventfd whose count this READ must not swallow unseen.
  };

  io_uring_sqe* get_sqe();
  int enter(Ring::Enter what, int64_t timeout_ns = Ring::kForever);
  void flush();
  void reap();
  void on_completion(const Ring::Completion& completion);
  void on_slot(Slot& slot, int32_t result);
  Slot& take_slot();
  void detach(Source& source);
  void arm_wake();
  void cancel(uint64_t user_data);
  void arm_interrupt(int64_t delay_ns);

  LoopState& state_;
  std::unique_ptr<Ring> ring_;
  UniqueFd wake_fd_;
  uint64_t wake_counter_ = 0;
  bool bound_ = false;
  bool closing_ = false;
  std::vector<Source*> before_bind_;  // Armed while nobody's thread was the loop's.

  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_slots_;
  size_t own_in_flight_ = 0;         // Slots, wake READ, timeout, cancellations.
  size_t operations_in_flight_ = 0;  // Of users.

  // In interrupt mode: the timeout that ends KVM_RUN.
  __kernel_timespec interrupt_after_{};
  bool interrupt_armed_ = false;
  int64_t interrupt_at_ns_ = 0;
};

}  // namespace skiff::loop
