// SPDX-License-Identifier: GPL-2.0-or-later
// EventNotifier: an eventfd, the doorbell and interrupt line between threads, the kernel and KVM.
//
// Thread: notify() from any; consume() from whoever watches it.
// Ownership: owns the descriptor; movable.
#pragma once

#include <functional>
#include <memory>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

class EventNotifier {
 public:
  static Result<EventNotifier> create();
  // One that another process made, and may do anything with: its counter can be full, it may be
  // blocking or not. Only to be watched; who wants to write to it minds that it may block.
  // kInvalidArgument when the descriptor is no eventfd.
  static Result<EventNotifier> adopt_foreign(UniqueFd fd);

  int fd() const { return fd_.get(); }
  bool is_foreign() const { return is_foreign_; }
  void notify() const;
  // True if it was notified since the last call. Never blocks.
  bool consume() const;

 private:
  explicit EventNotifier(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
  bool is_foreign_ = false;
};

// Calls back after a notification; once for all that it finds together. A notification that it was
// not called for when it goes stays in the notifier, for the next watch, but for a foreign one,
// which is never written to: look at what it rings for instead. On io_uring the counter is read by
// the ring itself, so a wake costs no system call of its own. Thread: home thread throughout.
// Ownership: borrows loop and notifier, both must outlive it.
class NotifierWatch {
 public:
  NotifierWatch(EventLoop& loop, const EventNotifier& notifier, Priority priority,
                std::function<void()> callback);
  ~NotifierWatch();  // After this the callback never runs.
  NotifierWatch(const NotifierWatch&) = delete;
  NotifierWatch& operator=(const NotifierWatch&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace skiff::loop
