// SPDX-License-Identifier: GPL-2.0-or-later
// Mailbox: what other threads have sent to one loop, and whether that loop must be woken for it.
//
// One word holds both: nothing, "asleep", or the newest message, linked to the older ones. So a
// send is one atomic exchange (a compare-exchange, repeated only when two senders collide), exactly
// one sender learns that it has to wake the loop, and a sender that is preempted half-way hides
// nobody else's message, as a queue that links in two steps would.
// Thread: send() and wake() from any; the rest on the loop's. Ownership: borrows the messages.
#pragma once

#include <atomic>
#include <cstdint>

#include "loop/event_loop.h"

namespace skiff::loop {

class Mailbox {
 public:
  // True if the receiver slept: the caller, and nobody else, must wake it.
  [[nodiscard]] bool send(Message& message) {
    Message* newest = newest_.load(std::memory_order_relaxed);
    do {
      message.next = newest == asleep() ? nullptr : newest;
    } while (!newest_.compare_exchange_weak(newest, &message, std::memory_order_acq_rel,
                                            std::memory_order_relaxed));
    return newest == asleep();
  }

  // For news that is not a message: true if the receiver slept, and the caller must wake it.
  [[nodiscard]] bool wake() {
    Message* expected = asleep();
    return newest_.compare_exchange_strong(expected, nullptr);
  }

  // False if something has arrived: then the receiver must not sleep.
  [[nodiscard]] bool try_sleep() {
    Message* expected = nullptr;
    sleeping_ = newest_.compare_exchange_strong(expected, asleep());
    return sleeping_;
  }

  // The receiver's: is there a message? Looks without taking.
  bool has_mail() const {
    const Message* newest = newest_.load(std::memory_order_acquire);
    return newest != nullptr && newest != asleep();
  }
  // The receiver's: has nobody sent or woken since try_sleep() succeeded?
  bool is_asleep() const { return newest_.load(std::memory_order_acquire) == asleep(); }

  // The receiver is up again, woken or not.
  void set_awake() {
    // If it is not asleep any more, somebody has taken it upon them to wake it.
    if (sleeping_ && !wake()) ++claimed_wakes_;
    sleeping_ = false;
  }

  // How often a send() or wake() has returned true. Whoever got that still touches the receiver.
  uint64_t claimed_wakes() const { return claimed_wakes_; }

  // Takes everything; the oldest first, linked by `next`. Null when there is nothing.
  Message* take_all() {
    Message* newest = newest_.load(std::memory_order_relaxed);
    if (newest == nullptr || newest == asleep()) return nullptr;
    // The receiver is running, or it would not be here: nobody needs to know that it slept.
    newest = newest_.exchange(nullptr, std::memory_order_acq_rel);
    Message* oldest_first = nullptr;
    while (newest != nullptr) {
      Message* older = newest->next;
      newest->next = oldest_first;
      oldest_first = newest;
      newest = older;
    }
    return oldest_first;
  }

 private:
  // The address of something that is no message of anybody's.
  Message* asleep() { return &sleeper_; }
  const Message* asleep() const { return &sleeper_; }

  std::atomic<Message*> newest_{nullptr};
  Message sleeper_;
  // The receiver's.
  bool sleeping_ = false;
  uint64_t claimed_wakes_ = 0;
};

}  // namespace skiff::loop
