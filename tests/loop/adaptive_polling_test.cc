// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/adaptive_polling.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "loop/event_loop.h"

namespace skiff::loop {
namespace {

constexpr int64_t kMaxNs = 20'000;

struct FakePoller : Poller {
  bool is_ready() const override { return ready; }
  void begin_polling() override { ++begun; }
  void schedule_work() override { ++scheduled; }
  bool end_polling() override {
    ++ended;
    return ready;
  }
  bool ready = false;
  int begun = 0;
  int ended = 0;
  int scheduled = 0;
};

class AdaptivePollingTest : public ::testing::Test {
 protected:
  AdaptivePollingTest() { polling_.set_max_ns(kMaxNs); }
  int64_t window() { return polling_.window_ns(now_ns_); }
  // A time without work, which `source` ended after `after_ns` if it was looked at by then, and a
  // wake later otherwise.
  void idle(AdaptivePolling::Source* source, int64_t after_ns, int64_t taken_ns = 0) {
    const bool seen = after_ns <= window();
    const int64_t spun_ns = (seen ? after_ns : window()) + taken_ns;
    const int64_t lasted_ns = seen ? after_ns + taken_ns : after_ns + kWakeNs;
    now_ns_ += lasted_ns;
    if (source != nullptr) source->came = true;
    polling_.learn(
        {.lasted_ns = lasted_ns, .spun_ns = spun_ns, .taken_ns = taken_ns, .now_ns = now_ns_});
    polling_.forget_what_came();
  }
  void idle_often(AdaptivePolling::Source* source, int64_t after_ns, int times) {
    for (int i = 0; i < times; ++i) idle(source, after_ns);
  }

  static constexpr int64_t kWakeNs = 15'000;
  int64_t now_ns_ = 1'000'000'000;
  AdaptivePolling polling_;
};

TEST_F(AdaptivePollingTest, DoesNotSpinBeforeAnythingIsKnown) { EXPECT_EQ(window(), 0); }

TEST_F(AdaptivePollingTest, SourceThatComesSoonIsWaitedForTwiceAsLongAsItTakes) {
  idle_often(&polling_.completions(), 4'000, 3);
  EXPECT_EQ(window(), kMaxNs);
  // Once it is seen spinning, its time is known without the wake in it.
  idle_often(&polling_.completions(), 4'000, 60);
  EXPECT_EQ(window(), 2 * 4'000);
  idle(&polling_.completions(), 7'000);
  EXPECT_EQ(window(), 2 * 7'000);
}

TEST_F(AdaptivePollingTest, NeverSpinsLongerThanAllowed) {
  idle_often(&polling_.mail(), 4'900, 100);
  EXPECT_LE(window(), kMaxNs);
  polling_.set_max_ns(5'000);
  EXPECT_LE(window(), 5'000);
  polling_.set_max_ns(0);
  EXPECT_FALSE(polling_.enabled());
}

TEST_F(AdaptivePollingTest, SourceThatStopsComingIsGivenUpAfterAFewSpins) {
  idle_often(&polling_.completions(), 1'000, 100);
  ASSERT_GT(window(), 0);
  int spins = 0;
  while (window() > 0) {
    idle(nullptr, 1'000'000);
    ASSERT_LT(++spins, 20);
  }
  EXPECT_GE(spins, 2) << "one bad moment must not end it";
}

TEST_F(AdaptivePollingTest, SourceThatComesLateIsNotSpunForAgainAndAgain) {
  idle_often(&polling_.completions(), 500'000, 1000);
  EXPECT_EQ(window(), 0);
}

// The wake makes it look later than it was.
TEST_F(AdaptivePollingTest, SourceThatOnlyTheWakeMakesLateIsFoundOut) {
  int idles = 0;
  do {
    idle(&polling_.completions(), 12'000);
    ASSERT_LT(++idles, 50);
  } while (polling_.completions().score == 0);
  idle_often(&polling_.completions(), 12'000, 20);
  EXPECT_GE(window(), 12'000);
}

TEST_F(AdaptivePollingTest, SourceJustOutOfReachCostsOneSpinInEight) {
  int64_t spun_ns = 0;
  for (int i = 0; i < 800; ++i) {
    spun_ns += window();
    idle(&polling_.completions(), 30'000);
  }
  EXPECT_LE(spun_ns, 100 * kMaxNs);
  EXPECT_GE(spun_ns, 50 * kMaxNs);
}

TEST_F(AdaptivePollingTest, IdleSourceTakesNothingFromABusyOne) {
  FakePoller busy;
  FakePoller idle_one;
  polling_.add(busy);
  polling_.add(idle_one);
  for (int i = 0; i < 100; ++i) {
    busy.ready = true;
    polling_.note_ready();
    busy.ready = false;
    idle(nullptr, 3'000);
    if (i % 4 == 0) idle(&polling_.descriptors(), 500'000);  // Rarely, and late.
  }
  EXPECT_GE(window(), 2 * 3'000);
  EXPECT_EQ(polling_.descriptors().score, 0);
  polling_.remove(busy);
  EXPECT_EQ(window(), 0);
  polling_.remove(idle_one);
  EXPECT_FALSE(polling_.has_pollers());
}

// Another source ended the spin before its own time was over: that says nothing of it.
TEST_F(AdaptivePollingTest, SpinEndedByAnotherSourceIsNotHeldAgainstThisOne) {
  idle_often(&polling_.completions(), 4'000, 100);
  const int32_t score = polling_.completions().score;
  idle_often(&polling_.mail(), 1'000, 100);
  EXPECT_EQ(polling_.completions().score, score);
}

TEST_F(AdaptivePollingTest, ThreadWhoseCpuOthersWantStopsSpinningForAWhile) {
  idle_often(&polling_.completions(), 4'000, 10);
  // Half of its time.
  for (int i = 0; i < 10'000 && window() > 0; ++i)
    idle(&polling_.completions(), 4'000, i % 750 == 0 ? 3'000'000 : 0);
  EXPECT_EQ(window(), 0);
  const int64_t stopped_ns = now_ns_;
  while (window() == 0 && now_ns_ < stopped_ns + 1'000'000'000)
    idle(&polling_.completions(), 4'000);
  EXPECT_GE(now_ns_ - stopped_ns, 100'000'000);
  EXPECT_LE(now_ns_ - stopped_ns, 101'000'000);
}

TEST_F(AdaptivePollingTest, EachTimeOthersWantTheCpuAgainItKeepsOffForLonger) {
  int64_t kept_off_ns = 0;
  for (int times = 0; times < 10; ++times) {
    idle_often(&polling_.completions(), 4'000, 20);
    ASSERT_GT(window(), 0);
    while (window() > 0) idle(&polling_.completions(), 4'000, 3'000'000);
    const int64_t stopped_ns = now_ns_;
    for (int i = 0; i < 1'000'000 && window() == 0; ++i) idle(&polling_.completions(), 4'000);
    EXPECT_GE(now_ns_ - stopped_ns, kept_off_ns) << times;
    kept_off_ns = now_ns_ - stopped_ns - 1'000'000;
  }
  EXPECT_LE(kept_off_ns, 1'700'000'000);
}

TEST_F(AdaptivePollingTest, OthersWhoNeedTheCpuForMomentsChangeNothing) {
  idle_often(&polling_.completions(), 4'000, 10);
  // 250 times a second, for 100 us.
  for (int i = 0; i < 500; ++i) {
    idle(&polling_.completions(), 4'000, 100'000);
    idle_often(&polling_.completions(), 4'000, 1'000);
    EXPECT_GT(window(), 0) << i;
  }
}

TEST_F(AdaptivePollingTest, PollerIsLookedAtFromItsFirstSpinUntilTheLoopSleeps) {
  FakePoller poller;
  polling_.add(poller);
  poller.ready = true;
  polling_.schedule_ready();
  EXPECT_EQ(poller.scheduled, 0) << "nobody looks yet";
  polling_.begin();
  polling_.begin();
  polling_.schedule_ready();
  EXPECT_EQ(poller.begun, 1);
  EXPECT_EQ(poller.scheduled, 1);
  polling_.end();
  polling_.end();
  polling_.schedule_ready();
  EXPECT_EQ(poller.ended, 1);
  EXPECT_EQ(poller.scheduled, 1);
}

TEST_F(AdaptivePollingTest, EveryPollerIsTakenOutOfPolling) {
  FakePoller first;
  FakePoller second;
  polling_.add(first);
  polling_.add(second);
  polling_.begin();
  EXPECT_FALSE(polling_.any_ready());
  first.ready = true;
  EXPECT_TRUE(polling_.any_ready());
  EXPECT_TRUE(polling_.end());
  EXPECT_EQ(first.begun + second.begun, 2);
  EXPECT_EQ(first.ended + second.ended, 2);
}

}  // namespace
}  // namespace skiff::loop
