// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/session.h"

#include <linux/virtio_blk.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/memory_file.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;
using loop::UniqueFd;

constexpr uint64_t kProtocolFeatures = kVhostMultiqueue | kVhostReplyAck | kVhostBackendReq |
                                       kVhostConfig | kVhostInflightShmfd | kVhostResetDevice |
                                       kVhostConfigureMemSlots;
// SET_CONFIG: what a driver may write, rather than a migration.
constexpr uint32_t kConfigByDriver = 0;

VhostMessage reply_to(const VhostMessage& request) {
  VhostMessage reply;
  reply.request = request.request;
  reply.is_reply = true;
  return reply;
}

VhostMessage reply_with(const VhostMessage& request, uint64_t value) {
  VhostMessage reply = reply_to(request);
  reply.append(value);
  return reply;
}

// The protocol feature that a request belongs to; 0: to none.
uint64_t needed_feature(VhostRequest request) {
  switch (request) {
    case VhostRequest::kGetConfig:
    case VhostRequest::kSetConfig:
      return kVhostConfig;
    case VhostRequest::kGetInflightFd:
    case VhostRequest::kSetInflightFd:
      return kVhostInflightShmfd;
    case VhostRequest::kSetBackendReqFd:
      return kVhostBackendReq;
    case VhostRequest::kResetDevice:
      return kVhostResetDevice;
    case VhostRequest::kGetMaxMemSlots:
    case VhostRequest::kAddMemReg:
    case VhostRequest::kRemMemReg:
      return kVhostConfigureMemSlots;
    default:
      return 0;
  }
}

}  // namespace

// co_await SocketWaiter(session, POLLIN): until the socket is ready for that.
class VhostSession::SocketWaiter {
 public:
  SocketWaiter(VhostSession& session, uint32_t events) : session_(session), events_(events) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    session_.waiter_ = waiter;
    session_.watcher_.watch(events_);
  }
  void await_resume() const noexcept {}

 private:
  VhostSession& session_;
  uint32_t events_;
};

VhostSession::VhostSession(const Options& options, UniqueFd socket)
    : options_(options),
      socket_(std::move(socket)),
      watcher_(*options.main_loop, socket_.get(), loop::Priority::kDevice, [this](uint32_t) {
        watcher_.watch(0);
        if (waiter_) std::exchange(waiter_, nullptr).resume();
      }) {}

uint64_t VhostSession::offered_features() const {
  // A queue that is reset alone is the front end's business: it stops the ring.
  return (options_.device->features() & ~kVirtioRingReset) | kVirtioVersion1 |
         kVirtioRingIndirectDesc | kVirtioRingEventIdx | kVhostProtocolFeatures;
}

Task<void> VhostSession::serve() {
  bool going_on = true;
  while (going_on) {
    auto request = reader_.read(socket_.get());
    if (!request) {
      if (request.error().kind() != ErrorKind::kCancelled)
        SKIFF_LOG_LIMITED(kWarn, "{}: Front end disconnected: {}", options_.name,
                          request.error().message());
      going_on = false;
    } else if (!request->has_value()) {
      co_await SocketWaiter(*this, POLLIN);
    } else {
      going_on = co_await answer(std::move(**request));
      // A peer that never stops asking does not keep the loop from the others.
      co_await loop::resume_on(*options_.main_loop);
    }
  }
  // The peer hears of it at once, not when its requests have ended.
  hang_up();
  co_await options_.rings->shut_down();
  if (options_.memory->has_faulted())
    SKIFF_LOG_LIMITED(kWarn, "{}: The front end cut its shared memory short", options_.name);
  options_.memory->clear();
}

void VhostSession::hang_up() { ::shutdown(socket_.get(), SHUT_RDWR); }

// False when the connection is of no more use.
Task<bool> VhostSession::answer(VhostMessage request) {
  const bool wants_ack = request.needs_reply && (protocol_features_ & kVhostReplyAck) != 0;
  auto allowed = check_allowed(request);
  auto reply = Result<Reply>(Reply{});
  if (allowed)
    reply = co_await carry_out(request);
  else
    reply = allowed.error();
  if (!reply) {
    const bool sent_away = reply.error().kind() == ErrorKind::kCorrupt || !wants_ack;
    SKIFF_LOG_LIMITED(
        kWarn, "{}: {}{}", options_.name,
        sent_away ? "Front end disconnected: " : "A request of the front end failed: ",
        reply.error().message());
    if (sent_away) co_return false;
    co_return co_await send(reply_with(request, 1), -1);
  }
  if (reply->message) co_return co_await send(std::move(*reply->message), reply->fd.get());
  if (wants_ack) co_return co_await send(reply_with(request, 0), -1);
  co_return true;
}

Task<bool> VhostSession::send(VhostMessage message, int fd) {
  const std::array fds = {fd};
  VhostWriter writer(message, std::span(fds).first(fd >= 0 ? 1u : 0u));
  while (true) {
    auto sent = writer.write(socket_.get());
    if (!sent) co_return false;
    if (*sent) co_return true;
    co_await SocketWaiter(*this, POLLOUT);
  }
}

Result<void> VhostSession::check_allowed(const VhostMessage& request) const {
  if (request.is_reply) return Error(ErrorKind::kCorrupt, "A reply where a request belongs");
  const uint64_t needed = needed_feature(request.kind());
  if ((protocol_features_ & needed) == needed) return {};
  return Error(ErrorKind::kCorrupt,
               fmt::format("{} without its protocol feature", vhost_request_name(request.kind())));
}

Task<Result<VhostSession::Reply>> VhostSession::carry_out(VhostMessage& request) {
  Result<void> done;
  switch (request.kind()) {
    case VhostRequest::kGetFeatures:
    case VhostRequest::kGetProtocolFeatures:
    case VhostRequest::kGetQueueNum:
    case VhostRequest::kGetMaxMemSlots: {
      auto value = get_value(request);
      if (!value) co_return value.error();
      co_return Reply{.message = reply_with(request, *value), .fd = {}};
    }
    case VhostRequest::kGetVringBase: {
      const auto state = parse_vring_state(request, options_.rings->count());
      if (!state) co_return state.error();
      const auto queue = static_cast<QueueIndex>(state->index);
      const uint16_t base = co_await options_.rings->take_base(queue);
      VhostMessage reply = reply_to(request);
      reply.append(VhostVringState{.index = queue, .value = base});
      co_return Reply{.message = std::move(reply), .fd = {}};
    }
    case VhostRequest::kGetConfig:
      co_return get_config(request);
    case VhostRequest::kGetInflightFd:
      co_return get_inflight(request);
    case VhostRequest::kSetFeatures:
      done = co_await set_features(request);
      break;
    case VhostRequest::kSetProtocolFeatures:
      done = set_protocol_features(request);
      break;
    case VhostRequest::kSetConfig:
      done = set_config(request);
      break;
    case VhostRequest::kSetBackendReqFd:
      done = set_backend_channel(request);
      break;
    case VhostRequest::kSetInflightFd:
      done = co_await set_inflight(request);
      break;
    case VhostRequest::kSetOwner:
      done = parse_empty(request);
      break;
    case VhostRequest::kResetOwner:
      done = parse_empty(request);
      if (done) co_await options_.rings->disable_all();
      break;
    case VhostRequest::kResetDevice:
      done = parse_empty(request);
      if (done) co_await options_.rings->shut_down();
      break;
    case VhostRequest::kSetMemTable:
    case VhostRequest::kAddMemReg:
    case VhostRequest::kRemMemReg:
      done = co_await carry_out_memory(request);
      break;
    default:
      done = co_await carry_out_vring(request);
      break;
  }
  if (!done) co_return done.error();
  co_return Reply{};
}

Task<Result<void>> VhostSession::carry_out_vring(VhostMessage& request) {
  VhostRings& rings = *options_.rings;
  switch (request.kind()) {
    case VhostRequest::kSetVringNum:
    case VhostRequest::kSetVringBase:
    case VhostRequest::kSetVringEnable: {
      const auto state = parse_vring_state(request, rings.count());
      if (!state) co_return state.error();
      const auto queue = static_cast<QueueIndex>(state->index);
      if (request.kind() == VhostRequest::kSetVringNum)
        co_return co_await rings.set_size(queue, state->value);
      if (request.kind() == VhostRequest::kSetVringBase)
        co_return co_await rings.set_base(queue, state->value);
      if (state->value > 1)
        co_return Error(ErrorKind::kCorrupt, fmt::format("A ring enabled by {}", state->value));
      co_return co_await rings.set_enabled(queue, state->value == 1);
    }
    case VhostRequest::kSetVringAddr: {
      const auto address = parse_vring_address(request, rings.count());
      if (!address) co_return address.error();
      co_return co_await rings.set_addresses(*address);
    }
    case VhostRequest::kSetVringKick:
    case VhostRequest::kSetVringCall:
    case VhostRequest::kSetVringErr: {
      auto line = parse_vring_fd(request, rings.count());
      if (!line) co_return line.error();
      if (request.kind() == VhostRequest::kSetVringCall)
        co_return rings.set_call(line->index, std::move(line->fd));
      if (request.kind() == VhostRequest::kSetVringErr)
        co_return rings.set_error(line->index, std::move(line->fd));
      co_return co_await rings.set_kick(line->index, std::move(line->fd));
    }
    default:
      co_return Error(ErrorKind::kUnsupported,
                      fmt::format("Request {} is not known here", request.request));
  }
}

Task<Result<void>> VhostSession::carry_out_memory(VhostMessage& request) {
  MemoryTable& memory = *options_.memory;
  if (request.kind() == VhostRequest::kSetMemTable) {
    const auto regions = parse_memory_table(request);
    if (!regions) co_return regions.error();
    co_return co_await options_.rings->change_memory([&]() -> Result<void> {
      memory.clear();
      for (size_t i = 0; i < regions->size(); ++i)
        SKIFF_RETURN_IF_ERROR(memory.add((*regions)[i], request.fds[i].get()));
      return {};
    });
  }
  const bool adds = request.kind() == VhostRequest::kAddMemReg;
  const auto region =
      parse_memory_region(request, adds ? RegionFd::kRequired : RegionFd::kOptional);
  if (!region) co_return region.error();
  co_return co_await options_.rings->change_memory([&]() -> Result<void> {
    if (adds) return memory.add(*region, request.fds.front().get());
    return memory.remove(*region);
  });
}

Result<uint64_t> VhostSession::get_value(const VhostMessage& request) const {
  SKIFF_RETURN_IF_ERROR(parse_empty(request));
  switch (request.kind()) {
    case VhostRequest::kGetFeatures:
      return offered_features();
    case VhostRequest::kGetProtocolFeatures:
      return kProtocolFeatures;
    case VhostRequest::kGetQueueNum:
      return uint64_t{options_.rings->count()};
    default:
      return uint64_t{MemoryTable::kRegionsMax};
  }
}

Task<Result<void>> VhostSession::set_features(const VhostMessage& request) {
  const auto features = parse_u64(request);
  if (!features) co_return features.error();
  if ((*features & ~offered_features()) != 0)
    co_return Error(ErrorKind::kCorrupt, fmt::format("Features {:#x} were not offered",
                                                     *features & ~offered_features()));
  const bool enables_later = (*features & kVhostProtocolFeatures) != 0;
  auto set = co_await options_.rings->set_features(*features);
  // Without protocol features there is no SET_VRING_ENABLE.
  for (QueueIndex queue = 0; set && !enables_later && queue < options_.rings->count(); ++queue)
    set = co_await options_.rings->set_enabled(queue, true);
  co_return set;
}

Result<void> VhostSession::set_protocol_features(const VhostMessage& request) {
  const auto features = parse_u64(request);
  if (!features) return features.error();
  if ((*features & ~kProtocolFeatures) != 0)
    return Error(ErrorKind::kCorrupt, fmt::format("Protocol features {:#x} were not offered",
                                                  *features & ~kProtocolFeatures));
  protocol_features_ = *features;
  return {};
}

Result<VhostSession::Reply> VhostSession::get_config(const VhostMessage& request) const {
  const auto access = parse_config(request);
  if (!access) return access.error();
  VhostMessage reply = reply_to(request);
  reply.append(VhostConfigHeader{.offset = access->offset,
                                 .size_bytes = static_cast<uint32_t>(access->bytes.size()),
                                 .flags = access->flags});
  std::vector<uint8_t> bytes(access->bytes.size());
  options_.device->read_config(access->offset, bytes);
  for (const uint8_t byte : bytes) reply.payload.push_back(std::byte{byte});
  return Reply{.message = std::move(reply), .fd = {}};
}

Result<void> VhostSession::set_config(const VhostMessage& request) {
  const auto access = parse_config(request);
  if (!access) return access.error();
  // A migration brings what this disk's configuration says already.
  if (access->flags != kConfigByDriver) return {};
  std::vector<uint8_t> bytes;
  bytes.reserve(access->bytes.size());
  for (const std::byte byte : access->bytes) bytes.push_back(std::to_integer<uint8_t>(byte));
  options_.device->write_config(access->offset, bytes);
  return {};
}

Result<VhostSession::Reply> VhostSession::get_inflight(const VhostMessage& request) const {
  const auto shape = parse_inflight(request, 0);
  if (!shape) return shape.error();
  if (shape->queue_count == 0 || shape->queue_count > options_.rings->count() ||
      shape->queue_size == 0 || shape->queue_size > options_.device->queue_size_max(0))
    return Error(ErrorKind::kCorrupt, fmt::format("An inflight log for {} queues of {}",
                                                  shape->queue_count, shape->queue_size));
  VhostInflight answer = *shape;
  answer.map_offset = 0;
  answer.map_bytes = shape->queue_count * InflightLog::bytes_for(shape->queue_size);
  auto fd = loop::create_sealed_memory("vhost-inflight", answer.map_bytes);
  if (!fd) return fd.error();
  VhostMessage reply = reply_to(request);
  reply.append(answer);
  return Reply{.message = std::move(reply), .fd = *std::move(fd)};
}

Task<Result<void>> VhostSession::set_inflight(VhostMessage& request) {
  const auto shape = parse_inflight(request, 1);
  if (!shape) co_return shape.error();
  const uint64_t needed = shape->queue_count * InflightLog::bytes_for(shape->queue_size);
  if (shape->queue_count > options_.rings->count() || shape->queue_size == 0 ||
      shape->map_bytes < needed || shape->map_offset % alignof(uint64_t) != 0)
    co_return Error(ErrorKind::kCorrupt,
                    fmt::format("An inflight log of {} bytes for {} queues of {}", shape->map_bytes,
                                shape->queue_count, shape->queue_size));
  auto mapping = SharedMapping::map(request.fds.front().get(), shape->map_offset, shape->map_bytes);
  if (!mapping) co_return mapping.error().with_context("The inflight log");
  co_return co_await options_.rings->set_inflight(*std::move(mapping), *shape);
}

Result<void> VhostSession::set_backend_channel(VhostMessage& request) {
  auto fd = parse_lone_fd(request);
  if (!fd) return fd.error();
  struct stat facts = {};
  if (::fstat(fd->get(), &facts) != 0 || !S_ISSOCK(facts.st_mode))
    return Error(ErrorKind::kCorrupt, "The back end's channel is no socket");
  backend_channel_ = *std::move(fd);
  return {};
}

void VhostSession::config_changed() {
  if (!backend_channel_) return;
  const VhostHeader header{.request = static_cast<uint32_t>(VhostBackendRequest::kConfigChange),
                           .flags = kVhostVersion,
                           .size_bytes = 0};
  // A peer that does not read its news does not get them.
  if (::send(backend_channel_.get(), &header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL) !=
      sizeof(header))
    SKIFF_LOG_LIMITED(kWarn, "{}: The front end was not told of the disk's new size",
                      options_.name);
}

}  // namespace skiff::devices
