// SPDX-License-Identifier: GPL-2.0-or-later
// MessageList: messages in order of arrival, linked through themselves.
//
// Thread: one. Ownership: borrows the messages; neither movable nor copyable.
#pragma once

#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::loop {

class MessageList {
 public:
  MessageList() { head_.next = head_.prev = &head_; }
  MessageList(const MessageList&) = delete;
  MessageList& operator=(const MessageList&) = delete;

  static bool is_linked(const Message& message) { return message.prev != nullptr; }

  bool empty() const { return head_.next == &head_; }

  // There is one.
  Message& front() const { return *head_.next; }

  void push_back(Message& message) {
    SKIFF_CHECK(!is_linked(message));
    message.prev = head_.prev;
    message.next = &head_;
    head_.prev->next = &message;
    head_.prev = &message;
  }

  // Null when empty.
  Message* pop_front() {
    if (empty()) return nullptr;
    Message* first = head_.next;
    unlink(*first);
    return first;
  }

  // Removes a message from whichever list it is on.
  static void unlink(Message& message) {
    message.prev->next = message.next;
    message.next->prev = message.prev;
    message.next = message.prev = nullptr;
  }

  // Moves all of `other` to the end of this.
  void append(MessageList& other) {
    if (other.empty()) return;
    head_.prev->next = other.head_.next;
    other.head_.next->prev = head_.prev;
    head_.prev = other.head_.prev;
    head_.prev->next = &head_;
    other.head_.next = other.head_.prev = &other.head_;
  }

 private:
  Message head_;  // Of a ring, so that unlinking needs no list.
};

}  // namespace skiff::loop
