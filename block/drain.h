// SPDX-License-Identifier: GPL-2.0-or-later
// DrainPoint: brings everybody who sends requests to an image to rest, and lets them go on.
//
// Asynchronous throughout: begin() tells each party on its own loop to take nothing new; each
// acknowledges when nothing of it is in flight; no loop waits and none is run from inside another.
// Drains nest: parties go on when the last one has ended. Each first begin() is an epoch of its
// own, so that an acknowledgement that comes too late counts for nothing. Who does not acknowledge
// is named in the log, over and over.
// Thread: main loop, but for DrainTicket. Ownership: borrows loop and parties; all of them have
// left when it goes, unless no drain ever began.
//
//   const auto drain = point.begin([&] { image.resize(size); point.end(drain); });
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/home.h"

namespace skiff::block {

class DrainPoint;
struct DrainMember;

// A party's answer to one quiesce(). Thread: the party's home loop. A value.
class DrainTicket {
 public:
  // Nothing is in flight, and nothing will be before resume().
  void acknowledge() const;

 private:
  friend class DrainPoint;
  std::weak_ptr<DrainPoint*> point_;
  std::weak_ptr<DrainMember> member_;
  loop::EventLoop* main_loop_ = nullptr;
  uint64_t epoch_ = 0;
};

// Somebody who sends requests: a queue, a job. Thread: its home loop.
class DrainParty {
 public:
  // Take nothing new, hurry with the rest, and acknowledge once, at once or later.
  virtual void quiesce(const DrainTicket& ticket) = 0;
  // Take work again. What came meanwhile rang no bell that anybody heard: look.
  virtual void resume() = 0;

 protected:
  ~DrainParty() = default;
};

class DrainPoint {
 public:
  using DrainId = uint64_t;
  static constexpr int64_t kWatchdogNs = 5'000'000'000;

  // `name`: of the image, for messages.
  DrainPoint(loop::EventLoop& main_loop, std::string name, int64_t watchdog_ns = kWatchdogNs);
  ~DrainPoint();
  DrainPoint(const DrainPoint&) = delete;
  DrainPoint& operator=(const DrainPoint&) = delete;

  // While a drain is on, a new party is told to be quiet first, and waited for.
  void join(DrainParty& party, loop::EventLoop& home, std::string name);
  // `left` runs in a later turn; from then on the party is never called.
  void leave(DrainParty& party, std::function<void()> left);

  // `drained` runs in a later turn, when all parties are quiet, unless end() comes first.
  DrainId begin(std::function<void()> drained);
  void end(DrainId drain);

  bool is_drained() const { return !open_.empty() && waiting_ == 0; }
  // Those that have not acknowledged.
  std::vector<std::string> waiting_for() const;

 private:
  friend class DrainTicket;
  struct Drain {
    DrainId id = 0;
    std::function<void()> drained;  // Empty: it ran.
  };
  void tell_quiesce(const std::shared_ptr<DrainMember>& member);
  void acknowledged(DrainMember& member, uint64_t epoch);
  void stop_waiting(DrainMember& member);
  void run_drained();
  void on_watchdog();

  loop::Home home_;
  const std::string name_;
  const int64_t watchdog_ns_;
  std::shared_ptr<DrainPoint*> self_;  // Shared with tickets: some may outlive the point.
  std::vector<std::shared_ptr<DrainMember>> members_;
  std::vector<Drain> open_;
  uint64_t epoch_ = 0;
  DrainId next_id_ = 1;
  size_t waiting_ = 0;
  int64_t begun_ns_ = 0;
  loop::BottomHalf drained_bh_;
  loop::Timer watchdog_;
};

}  // namespace skiff::block
