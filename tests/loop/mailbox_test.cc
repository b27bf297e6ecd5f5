// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/mailbox.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"

namespace skiff::loop {
namespace {

TEST(MailboxTest, OnlyTheFirstSenderToASleeperMustWakeIt) {
  Mailbox mailbox;
  std::array<Message, 3> messages;
  EXPECT_FALSE(mailbox.send(messages[0])) << "the receiver runs";
  EXPECT_FALSE(mailbox.try_sleep()) << "there is mail";
  EXPECT_EQ(mailbox.take_all(), messages.data());
  EXPECT_TRUE(mailbox.try_sleep());
  EXPECT_EQ(mailbox.take_all(), nullptr);
  EXPECT_TRUE(mailbox.send(messages[1]));
  EXPECT_FALSE(mailbox.send(messages[2]));
  Message* first = mailbox.take_all();
  EXPECT_EQ(first, &messages[1]);
  EXPECT_EQ(first->next, &messages[2]);
  EXPECT_EQ(messages[2].next, nullptr);
  EXPECT_EQ(mailbox.take_all(), nullptr);
}

TEST(MailboxTest, OnlyOneOfTwoWakersWakes) {
  Mailbox mailbox;
  EXPECT_FALSE(mailbox.wake());
  EXPECT_TRUE(mailbox.try_sleep());
  EXPECT_TRUE(mailbox.wake());
  EXPECT_FALSE(mailbox.wake());
  EXPECT_TRUE(mailbox.try_sleep());
  mailbox.set_awake();
  Message message;
  EXPECT_FALSE(mailbox.send(message));
}

TEST(MailboxTest, ManySendersLoseNothingAndWakeEachSleepOnce) {
  constexpr size_t kSenders = 4;
  constexpr size_t kEach = 5000;
  Mailbox mailbox;
  std::vector<std::vector<Message>> messages(kSenders, std::vector<Message>(kEach));
  std::atomic<size_t> wakes_owed{0};
  std::vector<Thread> senders;
  for (std::vector<Message>& mine : messages) {
    Result<Thread> thread = Thread::create({.name = "sender"}, [&] {
      for (Message& message : mine)
        if (mailbox.send(message)) ++wakes_owed;
    });
    ASSERT_TRUE(thread);
    senders.push_back(*std::move(thread));
  }
  size_t received = 0;
  size_t sleeps_ended = 0;
  bool asleep = false;
  while (received < kSenders * kEach) {
    if (!asleep) asleep = mailbox.try_sleep();
    // What would be a system call: here the sender's duty to wake is only counted.
    if (asleep && wakes_owed == sleeps_ended) continue;
    if (asleep) ++sleeps_ended;
    asleep = false;
    for (Message* message = mailbox.take_all(); message != nullptr; message = message->next)
      ++received;
  }
  for (Thread& sender : senders) sender.join();
  EXPECT_EQ(wakes_owed, sleeps_ended);
}

}  // namespace
}  // namespace skiff::loop
