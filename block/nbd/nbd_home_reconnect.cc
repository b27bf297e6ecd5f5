// SPDX-License-Identifier: GPL-2.0-or-later
// The life of the connections: how they come up, what happens when one ends, and whom they go to.
#include <libnbd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/nbd/nbd_channel.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_export.h"
#include "block/nbd/nbd_handle.h"
#include "block/nbd/nbd_home.h"
#include "block/nbd/nbd_job.h"
#include "block/nbd/nbd_negotiation.h"
#include "block/nbd/unflushed_writes.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kRetryNs = 100'000'000;
constexpr int64_t kRetryMaxNs = 5 * kSecondNs;
constexpr int64_t kOfferRetryMaxNs = 30 * kSecondNs;
constexpr uint64_t kRangeBytesMax = uint64_t{1} << 31;

int64_t backoff_ns(int64_t first_ns, uint32_t failures, int64_t max_ns) {
  return std::min(first_ns << std::min(failures, 16u), max_ns);
}

}  // namespace

void NbdHome::connect() {
  home_.assert_here();
  negotiation_ = std::make_unique<NbdNegotiation>(
      home_.loop(), connector_, options_.address, options_.connect_timeout_ns,
      [this](Result<NbdHandle> handle) { negotiated(std::move(handle)); });
}

void NbdHome::negotiated(Result<NbdHandle> handle) {
  home_.assert_here();
  const std::unique_ptr<NbdNegotiation> finished = std::move(negotiation_);
  const Result<void> adopted = handle ? adopt(*std::move(handle)) : Result<void>(handle.error());
  if (state_ == State::kOpening) {
    if (!adopted) return finish_open(adopted.error());
    return read_first_bytes();
  }
  if (!adopted) return retry_later(adopted.error());
  replay_when_ready();
}

Result<void> NbdHome::adopt(NbdHandle handle) {
  auto facts = NbdExport::learn(handle.get());
  if (!facts) return facts.error();
  if (state_ == State::kOpening) {
    if (facts->read_only && !options_.read_only) {
      return Error(ErrorKind::kPermission,
                   "The server offers it for reading only; say readonly=on, or have it offered "
                   "for writing");
    }
    facts->read_only = options_.read_only;
    facts_ = *facts;
    unflushed_.set_enabled(facts_.flush && !facts_.read_only);
  } else {
    SKIFF_RETURN_IF_ERROR(facts->can_stand_in_for(facts_));
  }
  offers_connections_ = facts->multi_conn;
  connection_ =
      std::make_unique<NbdConnection>(home_.loop(), std::move(handle), options_.reply_timeout_ns,
                                      [this](const Error& why) { connection_lost(why); });
  return {};
}

void NbdHome::connection_lost(const Error& why) {
  home_.assert_here();
  connection_.reset();
  replaying_ = false;
  if (state_ == State::kOpening) return finish_open(why);
  if (state_ == State::kUp) {
    SKIFF_LOG_LIMITED(kWarn, "Disk {}: {}; requests wait up to {} s for the server to come back",
                      options_.name, why.message(), options_.reconnect_delay_ns / kSecondNs);
    begin_recovery();
  }
  retry_later(why);
}

// From here until come_up() nobody sends anything to the server but us.
void NbdHome::begin_recovery() {
  state_ = State::kDown;
  room_flush_in_flight_ = false;
  parked_.insert(parked_.end(), stalled_.begin(), stalled_.end());
  stalled_.clear();
  wishes_.clear();
  offer_.reset();
  offer_timer_.cancel();
  closing_ = given_;
  for (const uint64_t id : given_)
    post_to_channel(id, [](NbdChannel& channel) { channel.close_fast_path(); });
}

void NbdHome::retry_later(const Error& why) {
  // Another disk than before needs somebody to look after it; a server that is not there is usual.
  if (why.kind() == ErrorKind::kCorrupt || why.kind() == ErrorKind::kUnsupported)
    SKIFF_LOG_LIMITED(kError, "Disk {}: {}", options_.name, why.message());
  else
    SKIFF_LOG_LIMITED(kInfo, "Disk {}: {}", options_.name, why.message());
  if (!in_outage_) {
    in_outage_ = true;
    if (options_.reconnect_delay_ns == 0)
      failing_ = true;
    else
      outage_timer_.arm_after(options_.reconnect_delay_ns);
  }
  if (failing_) fail_waiting();
  const int64_t delay_ns = attempts_ == 0 ? 0 : backoff_ns(kRetryNs, attempts_ - 1, kRetryMaxNs);
  ++attempts_;
  retry_timer_.arm_after(delay_ns);
}

void NbdHome::outage_too_long() {
  home_.assert_here();
  if (state_ == State::kUp) return made_progress();
  SKIFF_LOG_LIMITED(kError,
                    "Disk {}: the server has been gone for {} s; requests fail until it is back",
                    options_.name, options_.reconnect_delay_ns / kSecondNs);
  failing_ = true;
  fail_waiting();
}

void NbdHome::fail_waiting() {
  std::deque<NbdJob*> waiting;
  waiting.swap(parked_);
  for (NbdJob* job : waiting) answer(*job, -EIO);
}

void NbdHome::post_fast_path_closed(uint64_t channel) {
  home_.loop().post([this, channel] {
    home_.assert_here();
    given_.erase(channel);
    closing_.erase(channel);
    replay_when_ready();
  });
}

void NbdHome::replay_when_ready() {
  if (state_ != State::kDown || !connection_ || !closing_.empty() || replaying_) return;
  replaying_ = true;
  replaying_flush_ = false;
  replay_index_ = 0;
  replay_bytes_ = 0;
  replay_mark_ = unflushed_.mark();
  own_command_ = {
      .done = [](NbdCommand& command,
                 int32_t result) { static_cast<NbdHome*>(command.owner)->replay_done(result); },
      .owner = this};
  replay_next();
}

void NbdHome::replay_next() {
  const size_t count = unflushed_.count();
  if (count == 0) return come_up();
  if (replay_index_ == count) {
    replaying_flush_ = true;
    own_command_.op = NbdCommand::Op::kFlush;
    own_command_.flags = 0;
    return connection_->send(own_command_);
  }
  const UnflushedWrites::Write& write = unflushed_.at(replay_index_);
  const uint64_t left_bytes = write.length_bytes - replay_bytes_;
  own_command_.flags = 0;
  own_command_.offset_bytes = write.offset_bytes + replay_bytes_;
  own_command_.length_bytes = std::min(left_bytes, kRangeBytesMax);
  if (write.op == BlockOp::kWrite) {
    own_command_.op = NbdCommand::Op::kWrite;
    own_command_.bytes = write.bytes.get() + replay_bytes_;
    own_command_.length_bytes = std::min(left_bytes, facts_.transfer_bytes_max);
  } else if (write.op == BlockOp::kDiscard) {
    own_command_.op = NbdCommand::Op::kTrim;
  } else {
    own_command_.op = NbdCommand::Op::kZero;
    if (!write.may_unmap) own_command_.flags = LIBNBD_CMD_FLAG_NO_HOLE;
  }
  connection_->send(own_command_);
}

void NbdHome::replay_done(int32_t result) {
  home_.assert_here();
  if (result == NbdCommand::kLost) return;  // And from the beginning, with the next one.
  if (result != 0) {
    SKIFF_LOG(kError,
              "Disk {}: {}; what the server's predecessor had acknowledged is lost, and every "
              "flush fails from now on",
              options_.name,
              Error::from_errno(-result, "the server refuses a write that is repeated").message());
    unflushed_.give_up();
    return come_up();
  }
  if (replaying_flush_) {
    SKIFF_LOG(kInfo, "Disk {}: repeated {} writes that no flush had covered", options_.name,
              unflushed_.count());
    unflushed_.flushed(replay_mark_);
    made_progress();
    return come_up();
  }
  replay_bytes_ += own_command_.length_bytes;
  if (replay_bytes_ == unflushed_.at(replay_index_).length_bytes) {
    ++replay_index_;
    replay_bytes_ = 0;
  }
  replay_next();
}

void NbdHome::come_up() {
  state_ = State::kUp;
  replaying_ = false;
  SKIFF_LOG_LIMITED(kWarn, "Disk {}: connected again; {} requests go on", options_.name,
                    parked_.size());
  // Otherwise the outage ends when one of those that wait has been answered.
  if (parked_.empty()) made_progress();
  std::deque<NbdJob*> waiting;
  waiting.swap(parked_);
  for (NbdJob* job : waiting) take(*job);
  {
    const loop::MutexLock lock(doors_mutex_);
    for (const Door& door : doors_) wishes_.push_back(door.id);
  }
  offer_connections();
}

void NbdHome::post_want_connection(uint64_t channel) {
  home_.loop().post([this, channel] {
    home_.assert_here();
    given_.erase(channel);
    if (state_ != State::kUp) return;
    wishes_.push_back(channel);
    // Not at once: if the server has gone, our own connection is about to say so.
    if (!offer_timer_.is_armed())
      offer_timer_.arm_after(backoff_ns(kSecondNs, failed_offers_, kOfferRetryMaxNs));
  });
}

void NbdHome::offer_connections() {
  home_.assert_here();
  if (state_ != State::kUp || !offers_connections_ || wishes_.empty()) return;
  if (offer_ || offer_timer_.is_armed()) return;
  const uint64_t id = wishes_.front();
  wishes_.pop_front();
  offer_ = std::make_unique<NbdNegotiation>(
      home_.loop(), connector_, options_.address, options_.connect_timeout_ns,
      [this, id](Result<NbdHandle> handle) { offered(id, std::move(handle)); });
}

void NbdHome::offered(uint64_t id, Result<NbdHandle> handle) {
  home_.assert_here();
  const std::unique_ptr<NbdNegotiation> finished = std::move(offer_);
  Result<void> usable = handle ? Result<void>() : Result<void>(handle.error());
  if (handle) {
    const auto facts = NbdExport::learn(handle->get());
    usable = facts ? facts->can_stand_in_for(facts_) : Result<void>(facts.error());
  }
  if (!usable) {
    SKIFF_LOG_LIMITED(kInfo, "Disk {}: no connection of its own for a queue: {}", options_.name,
                      usable.error().message());
    wishes_.push_back(id);
    return offer_timer_.arm_after(backoff_ns(kSecondNs, failed_offers_++, kOfferRetryMaxNs));
  }
  failed_offers_ = 0;
  // std::function wants what it holds to be copyable.
  const auto shared = std::make_shared<NbdHandle>(*std::move(handle));
  const bool there = post_to_channel(
      id, [shared](NbdChannel& channel) { channel.adopt_connection(std::move(*shared)); });
  if (there) given_.insert(id);
  offer_connections();
}

bool NbdHome::post_to_channel(uint64_t id, std::function<void(NbdChannel&)> use) {
  const loop::MutexLock lock(doors_mutex_);
  const auto door = std::ranges::find(doors_, id, &Door::id);
  if (door == doors_.end()) return false;
  door->loop->post([token = door->channel, use = std::move(use)] {
    if (const auto channel = token.lock()) use(**channel);
  });
  return true;
}

}  // namespace skiff::block
