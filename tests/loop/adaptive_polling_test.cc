// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/adaptive_polling.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "loop/event_loop.h"

namespace skiff::loop {
namespace {

constexpr int64_t kMaxNs = 20'000;
int64_t preemptions = 0;

struct FakePoller : Poller {
  bool is_ready() const override { return ready; }
  void begin_polling() override { ++begun; }
  bool end_polling() override {
    ++ended;
    return ready;
  }
  bool ready = false;
  int begun = 0;
  int ended = 0;
};

class AdaptivePollingTest : public ::testing::Test {
 protected:
  AdaptivePollingTest() {
    preemptions = 0;
    polling_.set_max_ns(kMaxNs);
  }
  int64_t window() { return polling_.window_ns(now_ns_); }
  // A time without work, which `source` ended after `after_ns` if it was looked at by then, and a
  // wake later otherwise.
  void idle(AdaptivePolling::Source* source, int64_t after_ns) {
    const bool seen = after_ns <= window();
    const int64_t spun_ns = seen ? after_ns : window();
    const int64_t lasted_ns = seen ? after_ns : after_ns + kWakeNs;
    now_ns_ += lasted_ns;
    if (source != nullptr) source->came = true;
    polling_.learn({.lasted_ns = lasted_ns, .spun_ns = spun_ns, .now_ns = now_ns_});
    polling_.forget_what_came();
  }
  void idle_often(AdaptivePolling::Source* source, int64_t after_ns, int times) {
    for (int i = 0; i < times; ++i) idle(source, after_ns);
  }

  static constexpr int64_t kWakeNs = 15'000;
  int64_t now_ns_ = 1'000'000'000;
  AdaptivePolling polling_{[] { return preemptions; }};
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

TEST_F(AdaptivePollingTest, PreemptedThreadStopsSpinningForAWhile) {
  idle_often(&polling_.completions(), 4'000, 10);
  while (window() > 0) {
    now_ns_ += 5'000'000;
    preemptions += 2;
    idle(&polling_.completions(), 4'000);
  }
  EXPECT_EQ(polling_.completions().score, 0);
  idle_often(&polling_.completions(), 4'000, 10);
  EXPECT_EQ(window(), 0) << "not yet";
  now_ns_ += 200'000'000;
  idle_often(&polling_.completions(), 4'000, 10);
  EXPECT_GT(window(), 0);
}

TEST_F(AdaptivePollingTest, RarePreemptionsChangeNothing) {
  idle_often(&polling_.completions(), 4'000, 10);
  for (int i = 0; i < 100; ++i) {
    now_ns_ += 50'000'000;
    ++preemptions;
    idle(&polling_.completions(), 4'000);
    EXPECT_GT(window(), 0);
  }
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
