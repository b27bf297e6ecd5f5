// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/drain.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"

namespace skiff::block {

// Shared by the point, messages under way and tickets; `party` is its home's, the rest the main
// loop's.
struct DrainMember {
  DrainParty* party = nullptr;
  const DrainParty* key = nullptr;  // To find it by: never followed.
  loop::EventLoop* home = nullptr;
  std::string name;
  bool waited_for = false;
};

void DrainTicket::acknowledge() const {
  main_loop_->post([point = point_, member = member_, epoch = epoch_] {
    const auto alive = point.lock();
    const auto asked = member.lock();
    if (alive && asked) (*alive)->acknowledged(*asked, epoch);
  });
}

DrainPoint::DrainPoint(loop::EventLoop& main_loop, std::string name, int64_t watchdog_ns)
    : home_(main_loop),
      name_(std::move(name)),
      watchdog_ns_(watchdog_ns),
      self_(std::make_shared<DrainPoint*>(this)),
      drained_bh_(main_loop, loop::Priority::kDevice, [this] { run_drained(); }),
      watchdog_(main_loop, loop::Priority::kService, [this] { on_watchdog(); }) {}

DrainPoint::~DrainPoint() { SKIFF_CHECK(members_.empty() || epoch_ == 0); }

void DrainPoint::join(DrainParty& party, loop::EventLoop& home, std::string name) {
  home_.assert_here();
  auto member = std::make_shared<DrainMember>();
  member->party = &party;
  member->key = &party;
  member->home = &home;
  member->name = std::move(name);
  members_.push_back(member);
  if (!open_.empty()) tell_quiesce(member);
}

void DrainPoint::leave(DrainParty& party, std::function<void()> left) {
  home_.assert_here();
  const auto found = std::ranges::find(members_, &party, &DrainMember::key);
  SKIFF_CHECK(found != members_.end());
  const std::shared_ptr<DrainMember> member = std::move(*found);
  members_.erase(found);
  stop_waiting(*member);
  // Behind all that is on its way to the party.
  member->home->post([member, left = std::move(left), main = &home_.loop()]() mutable {
    member->party = nullptr;
    main->post(std::move(left));
  });
}

DrainPoint::DrainId DrainPoint::begin(std::function<void()> drained) {
  home_.assert_here();
  const bool is_first = open_.empty();
  open_.push_back({next_id_, std::move(drained)});
  if (is_first) {
    ++epoch_;
    begun_ns_ = home_.loop().now_ns();
    for (const auto& member : members_) tell_quiesce(member);
    watchdog_.arm_after(watchdog_ns_);
  }
  if (waiting_ == 0) drained_bh_.schedule();
  return next_id_++;
}

void DrainPoint::end(DrainId drain) {
  home_.assert_here();
  const auto found = std::ranges::find(open_, drain, &Drain::id);
  SKIFF_CHECK(found != open_.end());
  open_.erase(found);
  if (!open_.empty()) return;
  waiting_ = 0;
  watchdog_.cancel();
  for (const auto& member : members_) {
    member->waited_for = false;
    member->home->post([member] {
      if (member->party != nullptr) member->party->resume();
    });
  }
}

std::vector<std::string> DrainPoint::waiting_for() const {
  std::vector<std::string> names;
  for (const auto& member : members_)
    if (member->waited_for) names.push_back(member->name);
  return names;
}

void DrainPoint::tell_quiesce(const std::shared_ptr<DrainMember>& member) {
  ++waiting_;
  member->waited_for = true;
  DrainTicket ticket;
  ticket.point_ = self_;
  ticket.member_ = member;
  ticket.main_loop_ = &home_.loop();
  ticket.epoch_ = epoch_;
  member->home->post([member, ticket] {
    if (member->party != nullptr) member->party->quiesce(ticket);
  });
}

void DrainPoint::acknowledged(DrainMember& member, uint64_t epoch) {
  home_.assert_here();
  if (epoch == epoch_) stop_waiting(member);
}

void DrainPoint::stop_waiting(DrainMember& member) {
  if (!std::exchange(member.waited_for, false)) return;
  if (--waiting_ == 0) drained_bh_.schedule();
}

void DrainPoint::run_drained() {
  home_.assert_here();
  // A callback may begin, end and join: each time from the start, while it is still true.
  while (waiting_ == 0) {
    const auto next =
        std::ranges::find_if(open_, [](const Drain& d) { return d.drained != nullptr; });
    if (next == open_.end()) break;
    std::exchange(next->drained, nullptr)();
  }
  if (waiting_ == 0) watchdog_.cancel();
}

void DrainPoint::on_watchdog() {
  home_.assert_here();
  if (waiting_ == 0) return;
  SKIFF_LOG(kWarn, "{}: for {} s its requests have been waited for, those of: {}", name_,
            (home_.loop().now_ns() - begun_ns_) / 1'000'000'000, fmt::join(waiting_for(), ", "));
  watchdog_.arm_after(watchdog_ns_);
}

}  // namespace skiff::block
