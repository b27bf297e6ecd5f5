// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/frontend.h"

#include <spdlog/fmt/fmt.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/connection.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "loop/event_notifier.h"
#include "loop/memory_file.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::EventNotifier;
using loop::Result;
using loop::UniqueFd;

constexpr uint64_t kWantedProtocolFeatures =
    kVhostMultiqueue | kVhostReplyAck | kVhostBackendReq | kVhostConfig | kVhostInflightShmfd;
constexpr uint32_t kConfigByDriver = 0;

VhostMessage make_request(VhostRequest kind) {
  VhostMessage message;
  message.request = static_cast<uint32_t>(kind);
  return message;
}

// Where the back end finds what the driver has at this address.
Result<uint64_t> user_address(std::span<const SharedRegion> memory, GuestAddress address) {
  for (const SharedRegion& shared : memory) {
    const GuestRegion& region = shared.region;
    if (address < region.base || address.value - region.base.value >= region.size_bytes) continue;
    return reinterpret_cast<uint64_t>(region.host) + (address.value - region.base.value);
  }
  return Error(ErrorKind::kCorrupt,
               fmt::format("The ring at {:#x} is not in shared memory", address.value));
}

}  // namespace

Result<FrontendMemory> FrontendMemory::create(uint64_t size_bytes) {
  auto fd = loop::create_sealed_memory("vhost-memory", size_bytes);
  if (!fd) return fd.error();
  FrontendMemory memory;
  memory.fd_ = *std::move(fd);
  auto mapping = SharedMapping::map(memory.fd_.get(), 0, size_bytes);
  if (!mapping) return mapping.error();
  memory.mapping_ = *std::move(mapping);
  memory.region_ = {
      .region = {.base = {0}, .host = memory.mapping_.bytes().data(), .size_bytes = size_bytes},
      .fd = memory.fd_.get(),
      .file_offset = 0};
  memory.memory_ = GuestMemory({memory.region_.region});
  return memory;
}

Result<std::unique_ptr<VhostUserFrontend>> VhostUserFrontend::connect(const Options& options) {
  auto connection = VhostConnection::connect(options.socket, options.timeout_ns);
  if (!connection) return connection.error();
  return negotiate(*std::move(connection));
}

Result<std::unique_ptr<VhostUserFrontend>> VhostUserFrontend::negotiate(
    VhostConnection connection) {
  std::unique_ptr<VhostUserFrontend> frontend(new VhostUserFrontend(std::move(connection)));
  SKIFF_RETURN_IF_ERROR(frontend->agree());
  return frontend;
}

Result<void> VhostUserFrontend::agree() {
  const auto features = connection_.call_u64(VhostRequest::kGetFeatures);
  if (!features) return features.error();
  features_ = *features & ~kVhostProtocolFeatures;
  if ((*features & kVhostProtocolFeatures) != 0) {
    const auto offered = connection_.call_u64(VhostRequest::kGetProtocolFeatures);
    if (!offered) return offered.error();
    VhostMessage request = make_request(VhostRequest::kSetProtocolFeatures);
    request.append(*offered & kWantedProtocolFeatures);
    SKIFF_RETURN_IF_ERROR(connection_.send(std::move(request), {}, false));
    protocol_features_ = *offered & kWantedProtocolFeatures;
  }
  if (!has(kVhostConfig))
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Vhost-user back end {} tells no configuration, so it is no disk",
                             connection_.peer()));
  if (has(kVhostMultiqueue)) {
    const auto count = connection_.call_u64(VhostRequest::kGetQueueNum);
    if (!count) return count.error();
    // The index of a queue has eight bits.
    queue_count_max_ = static_cast<uint16_t>(std::clamp<uint64_t>(*count, 1, kVringIndexMask + 1));
  }
  SKIFF_RETURN_IF_ERROR(
      connection_.send(make_request(VhostRequest::kSetOwner), {}, has(kVhostReplyAck)));
  return open_news();
}

Result<void> VhostUserFrontend::open_news() {
  if (!has(kVhostBackendReq)) return {};
  std::array<int, 2> ends = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return Error::from_errno(errno, "Making a channel for the back end's news");
  news_.reset(ends[0]);
  const UniqueFd theirs(ends[1]);
  const std::array fds = {theirs.get()};
  return connection_.send(make_request(VhostRequest::kSetBackendReqFd), fds, has(kVhostReplyAck));
}

// The only news there is. A back end that sends anything else is not believed any more.
bool VhostUserFrontend::take_config_change() {
  bool changed = false;
  while (news_) {
    auto message = news_reader_.read(news_.get());
    if (!message) {
      news_.reset();
      break;
    }
    if (!message->has_value()) break;
    const VhostMessage& news = **message;
    changed |= news.request == static_cast<uint32_t>(VhostBackendRequest::kConfigChange);
    if (!news.needs_reply) continue;
    VhostMessage reply;
    reply.request = news.request;
    reply.is_reply = true;
    reply.append(uint64_t{0});
    [[maybe_unused]] const auto sent = VhostWriter(reply, {}).write(news_.get());
  }
  return changed;
}

template <typename T>
Result<void> VhostUserFrontend::set(VhostRequest request, const T& value,
                                    std::span<const int> fds) {
  VhostMessage message = make_request(request);
  message.append(value);
  return connection_.send(std::move(message), fds, has(kVhostReplyAck));
}

Result<void> VhostUserFrontend::read_config(uint32_t offset_bytes, std::span<uint8_t> data) {
  VhostMessage request = make_request(VhostRequest::kGetConfig);
  request.append(
      VhostConfigHeader{.offset = offset_bytes, .size_bytes = static_cast<uint32_t>(data.size())});
  request.payload.resize(request.payload.size() + data.size());
  const auto reply = connection_.call(std::move(request));
  if (!reply) return reply.error();
  const auto access = parse_config(*reply);
  if (!access) return access.error().with_context("Vhost-user back end", connection_.peer());
  if (access->offset != offset_bytes || access->bytes.size() != data.size())
    return Error(
        ErrorKind::kCorrupt,
        fmt::format("Vhost-user back end {}: {} bytes of configuration at {} came as {} at "
                    "{}",
                    connection_.peer(), data.size(), offset_bytes, access->bytes.size(),
                    access->offset));
  std::memcpy(data.data(), access->bytes.data(), data.size());
  return {};
}

Result<void> VhostUserFrontend::write_config(uint32_t offset_bytes, std::span<const uint8_t> data) {
  VhostMessage request = make_request(VhostRequest::kSetConfig);
  request.append(VhostConfigHeader{.offset = offset_bytes,
                                   .size_bytes = static_cast<uint32_t>(data.size()),
                                   .flags = kConfigByDriver});
  for (const uint8_t byte : data) request.payload.push_back(std::byte{byte});
  return connection_.send(std::move(request), {}, has(kVhostReplyAck));
}

Result<VhostUserFrontend::InflightFile> VhostUserFrontend::create_inflight(uint16_t queue_count,
                                                                           uint16_t queue_size) {
  if (!can_keep_inflight())
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Vhost-user back end {} keeps no log of requests in flight",
                             connection_.peer()));
  VhostMessage request = make_request(VhostRequest::kGetInflightFd);
  request.append(VhostInflight{.queue_count = queue_count, .queue_size = queue_size});
  auto reply = connection_.call(std::move(request));
  if (!reply) return reply.error();
  const auto shape = parse_inflight(*reply, 1);
  if (!shape) return shape.error().with_context("Vhost-user back end", connection_.peer());
  return InflightFile{.fd = std::move(reply->fds.front()), .shape = *shape};
}

Result<void> VhostUserFrontend::share_memory(std::span<const SharedRegion> memory) {
  if (memory.size() > kVhostTableRegionsMax)
    return Error(ErrorKind::kUnsupported,
                 fmt::format("{} regions of memory, at most {} can be shared", memory.size(),
                             kVhostTableRegionsMax));
  VhostMessage request = make_request(VhostRequest::kSetMemTable);
  request.append(VhostMemoryTableHeader{.count = static_cast<uint32_t>(memory.size())});
  std::vector<int> fds;
  fds.reserve(memory.size());
  for (const SharedRegion& shared : memory) {
    request.append(VhostMemoryRegion{.guest_address = shared.region.base.value,
                                     .size_bytes = shared.region.size_bytes,
                                     .user_address = reinterpret_cast<uint64_t>(shared.region.host),
                                     .file_offset = shared.file_offset});
    fds.push_back(shared.fd);
  }
  return connection_.send(std::move(request), fds, has(kVhostReplyAck));
}

Result<void> VhostUserFrontend::start(const Setup& setup) {
  if (setup.queues.size() > queue_count_max_)
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Vhost-user back end {} has {} queues, not {}", connection_.peer(),
                             queue_count_max_, setup.queues.size()));
  const uint64_t protocol = protocol_features_ != 0 ? kVhostProtocolFeatures : 0;
  SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetFeatures, setup.features | protocol));
  SKIFF_RETURN_IF_ERROR(share_memory(setup.memory));
  if (setup.inflight != nullptr) {
    const std::array fds = {setup.inflight->fd.get()};
    SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetInflightFd, setup.inflight->shape, fds));
  }
  for (uint16_t index = 0; index < setup.queues.size(); ++index)
    if (setup.queues[index].layout.size != 0)
      SKIFF_RETURN_IF_ERROR(start_queue(index, setup.queues[index], setup.memory));
  return {};
}

Result<void> VhostUserFrontend::start_queue(uint16_t index, const Queue& queue,
                                            std::span<const SharedRegion> memory) {
  const auto descriptors = user_address(memory, queue.layout.descriptors);
  if (!descriptors) return descriptors.error();
  const auto available = user_address(memory, queue.layout.available);
  if (!available) return available.error();
  const auto used = user_address(memory, queue.layout.used);
  if (!used) return used.error();
  SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetVringNum, VhostVringState{index, queue.layout.size}));
  SKIFF_RETURN_IF_ERROR(
      set(VhostRequest::kSetVringBase, VhostVringState{index, queue.next_available}));
  SKIFF_RETURN_IF_ERROR(set(
      VhostRequest::kSetVringAddr,
      VhostVringAddress{
          .index = index, .descriptors = *descriptors, .used = *used, .available = *available}));
  const bool calls = queue.call_fd >= 0;
  const std::array call = {queue.call_fd};
  const std::array kick = {queue.kick_fd};
  SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetVringCall, uint64_t{index} | (calls ? 0 : kVringNoFd),
                            std::span(call).first(calls ? 1u : 0u)));
  SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetVringKick, uint64_t{index}, kick));
  if (protocol_features_ != 0)
    SKIFF_RETURN_IF_ERROR(set(VhostRequest::kSetVringEnable, VhostVringState{index, 1}));
  started_.push_back(index);
  return {};
}

Result<std::vector<uint16_t>> VhostUserFrontend::stop() {
  std::vector<uint16_t> bases;
  for (const uint16_t index : started_) {
    VhostMessage request = make_request(VhostRequest::kGetVringBase);
    request.append(VhostVringState{index, 0});
    const auto reply = connection_.call(std::move(request));
    if (!reply) return reply.error();
    const auto state = parse_vring_state(*reply, queue_count_max_);
    if (!state) return state.error().with_context("Vhost-user back end", connection_.peer());
    bases.resize(index + size_t{1});
    bases[index] = static_cast<uint16_t>(state->value);
  }
  started_.clear();
  return bases;
}

Result<EventNotifier> VhostUserFrontend::create_call_eventfd() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return Error::from_errno(errno, "Creating an eventfd");
  return EventNotifier::adopt_foreign(std::move(fd));
}

}  // namespace skiff::devices
