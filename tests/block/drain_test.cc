// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/drain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/testing/manual_loop.h"

namespace skiff::block {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ScriptedParty final : public DrainParty {
 public:
  explicit ScriptedParty(bool answers = false) : answers_(answers) {}
  void quiesce(const DrainTicket& ticket) override {
    ++quiesced;
    ticket_ = ticket;
    if (answers_) ticket.acknowledge();
  }
  void resume() override { ++resumed; }
  void acknowledge() { ticket_->acknowledge(); }
  int quiesced = 0;
  int resumed = 0;

 private:
  const bool answers_;
  std::optional<DrainTicket> ticket_;
};

class DrainTest : public ::testing::Test {
 protected:
  DrainTest() {
    point_.join(a_, loop_, "queue a");
    point_.join(b_, loop_, "queue b");
  }
  ~DrainTest() override {
    for (ScriptedParty* party : parties_) point_.leave(*party, [] {});
    loop_.run_until_idle();
  }
  DrainPoint::DrainId begin() {
    return point_.begin([this] { ++drained_; });
  }
  void run() { loop_.run_until_idle(); }

  loop::ManualLoop loop_;
  DrainPoint point_{loop_, "disk0", 1'000'000'000};
  ScriptedParty a_;
  ScriptedParty b_;
  std::vector<ScriptedParty*> parties_ = {&a_, &b_};
  int drained_ = 0;
};

TEST_F(DrainTest, EndsWhenTheLastPartyIsQuietAndResumesThemAfterwards) {
  const auto drain = begin();
  EXPECT_EQ(a_.quiesced, 0);  // On its loop, not inside begin().
  run();
  EXPECT_EQ(a_.quiesced, 1);
  EXPECT_EQ(b_.quiesced, 1);
  a_.acknowledge();
  run();
  EXPECT_EQ(drained_, 0);
  EXPECT_THAT(point_.waiting_for(), ElementsAre("queue b"));
  b_.acknowledge();
  EXPECT_EQ(drained_, 0);
  run();
  EXPECT_EQ(drained_, 1);
  EXPECT_TRUE(point_.is_drained());
  EXPECT_EQ(a_.resumed, 0);
  point_.end(drain);
  run();
  EXPECT_EQ(a_.resumed, 1);
  EXPECT_EQ(b_.resumed, 1);
  EXPECT_FALSE(point_.is_drained());
}

TEST_F(DrainTest, NestedDrainsShareTheQuietAndTheLastOneEndsIt) {
  const auto outer = begin();
  run();
  const auto inner = begin();
  a_.acknowledge();
  b_.acknowledge();
  run();
  EXPECT_EQ(drained_, 2);
  const auto late = begin();  // All are quiet already.
  EXPECT_EQ(drained_, 2);
  run();
  EXPECT_EQ(drained_, 3);
  EXPECT_EQ(a_.quiesced, 1);
  point_.end(outer);
  point_.end(late);
  run();
  EXPECT_EQ(a_.resumed, 0);
  point_.end(inner);
  run();
  EXPECT_EQ(a_.resumed, 1);
}

TEST_F(DrainTest, AcknowledgementOfAnEarlierDrainCountsForNothing) {
  const auto first = begin();
  run();
  ScriptedParty& late = a_;
  b_.acknowledge();
  run();
  point_.end(first);  // Given up.
  EXPECT_EQ(drained_, 0);
  late.acknowledge();  // Under way while the next one begins.
  const auto second = begin();
  run();
  EXPECT_EQ(drained_, 0);
  EXPECT_EQ(a_.resumed, 1);
  EXPECT_EQ(a_.quiesced, 2);
  a_.acknowledge();
  b_.acknowledge();
  run();
  EXPECT_EQ(drained_, 1);
  point_.end(second);
}

TEST_F(DrainTest, PartyThatJoinsDuringADrainIsQuietFirst) {
  const auto drain = begin();
  run();
  a_.acknowledge();
  ScriptedParty c;
  point_.join(c, loop_, "job");
  b_.acknowledge();
  run();
  EXPECT_EQ(c.quiesced, 1);
  EXPECT_EQ(drained_, 0);
  EXPECT_THAT(point_.waiting_for(), ElementsAre("job"));
  c.acknowledge();
  run();
  EXPECT_EQ(drained_, 1);
  point_.end(drain);
  point_.leave(c, [] {});
  run();
}

TEST_F(DrainTest, PartyThatLeavesIsWaitedForNoLongerAndNeverCalledAgain) {
  const auto drain = begin();
  bool left = false;
  point_.leave(b_, [&] { left = true; });
  parties_.pop_back();
  run();
  EXPECT_TRUE(left);
  a_.acknowledge();
  run();
  EXPECT_EQ(drained_, 1);
  point_.end(drain);
  run();
  EXPECT_EQ(b_.resumed, 0);
}

TEST_F(DrainTest, WatchdogNamesThoseWhoHaveNotFinished) {
  const auto drain = begin();
  run();
  b_.acknowledge();
  run();
  ::testing::internal::CaptureStderr();
  loop_.advance_ns(1'000'000'000);
  loop_.advance_ns(1'000'000'000);
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("disk0: for 1 s"));
  EXPECT_THAT(log, HasSubstr("disk0: for 2 s"));
  EXPECT_THAT(log, HasSubstr("queue a"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("queue b")));
  a_.acknowledge();
  run();
  ::testing::internal::CaptureStderr();
  loop_.advance_ns(5'000'000'000);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), IsEmpty());
  point_.end(drain);
}

TEST_F(DrainTest, DrainWithNobodyIsOverInALaterTurn) {
  DrainPoint empty(loop_, "disk1");
  bool drained = false;
  const auto drain = empty.begin([&] { drained = true; });
  EXPECT_FALSE(drained);
  run();
  EXPECT_TRUE(drained);
  empty.end(drain);
}

// A queue on an IOThread: sends to itself all the time, unless it is to be quiet.
class BusyParty final : public DrainParty {
 public:
  BusyParty(loop::EventLoop& home, std::atomic<bool>& drained) : home_(home), drained_(drained) {}
  void start() {
    home_.post([this] { send(); });
  }
  void stop() { stopped_ = true; }
  void quiesce(const DrainTicket& ticket) override {
    ticket_ = ticket;
    if (in_flight_ == 0) acknowledge();
  }
  void resume() override {
    ticket_.reset();
    quiet_ = false;
    send();
  }
  uint64_t broken() const { return broken_; }
  uint64_t sent() const { return sent_; }

 private:
  void acknowledge() {
    quiet_ = true;
    ticket_->acknowledge();
  }
  void send() {
    while (in_flight_ < 3 && !ticket_ && !stopped_) {
      ++in_flight_;
      ++sent_;
      home_.post([this] {
        // No request of anybody while the drain is on.
        if (quiet_ || drained_.load()) ++broken_;
        --in_flight_;
        if (ticket_ && in_flight_ == 0) return acknowledge();
        send();
      });
    }
  }
  loop::EventLoop& home_;
  std::atomic<bool>& drained_;
  std::atomic<bool> stopped_{false};
  std::optional<DrainTicket> ticket_;
  bool quiet_ = false;
  uint32_t in_flight_ = 0;
  uint64_t sent_ = 0;
  uint64_t broken_ = 0;
};

TEST(DrainStressTest, PartiesOnSeveralThreadsAreAllQuietEveryTime) {
  auto main_loop = *loop::EventLoop::create();
  std::atomic<bool> drained{false};
  std::vector<std::unique_ptr<loop::IoThread>> threads;
  std::vector<std::unique_ptr<BusyParty>> parties;
  DrainPoint point(*main_loop, "disk0");
  for (int i = 0; i < 3; ++i) {
    threads.push_back(*loop::IoThread::create({.name = "io"}));
    for (int j = 0; j < 2; ++j) {
      parties.push_back(std::make_unique<BusyParty>(threads.back()->loop(), drained));
      point.join(*parties.back(), threads.back()->loop(), "party");
      parties.back()->start();
    }
  }
  std::mt19937 random(11);
  for (int round = 0; round < 150; ++round) {
    bool over = false;
    const bool nested = random() % 3 == 0;
    const auto outer = point.begin([&] {
      drained = true;
      over = true;
    });
    std::optional<DrainPoint::DrainId> inner;
    if (nested) inner = point.begin([] {});
    if (random() % 5 == 0) {  // Given up at once, and begun again.
      if (inner) point.end(*inner);
      point.end(outer);
      drained = false;
      continue;
    }
    while (!over) main_loop->run_once(loop::EventLoop::Wait::kUntilEvent);
    drained = false;
    point.end(outer);
    if (inner) point.end(*inner);
  }
  size_t left = parties.size();
  for (const auto& party : parties) {
    party->stop();
    point.leave(*party, [&left] { --left; });
  }
  while (left > 0) main_loop->run_once(loop::EventLoop::Wait::kUntilEvent);
  threads.clear();
  for (const auto& party : parties) {
    EXPECT_EQ(party->broken(), 0u);
    EXPECT_GT(party->sent(), 0u);
  }
}

}  // namespace
}  // namespace skiff::block
