// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/message.h"

#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/vhost_user/protocol.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

constexpr size_t kControlBytes = CMSG_SPACE(kVhostFdsMax * sizeof(int));

Error corrupt(std::string text) { return {ErrorKind::kCorrupt, std::move(text)}; }

std::string name_of(const VhostMessage& message) {
  return fmt::format("{} ({})", vhost_request_name(message.kind()), message.request);
}

template <typename T>
T copy_from(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

Result<void> check_fds(const VhostMessage& message, size_t count) {
  if (message.fds.size() == count) return {};
  return corrupt(fmt::format("{} came with {} descriptors, not {}", name_of(message),
                             message.fds.size(), count));
}

Error wrong_size(const VhostMessage& message) {
  return corrupt(
      fmt::format("{} has a payload of {} bytes", name_of(message), message.payload.size()));
}

// Of one kind of payload, without descriptors unless the caller looks at them itself.
template <typename T>
Result<T> parse_exactly(const VhostMessage& message) {
  if (message.payload.size() != sizeof(T)) return wrong_size(message);
  return copy_from<T>(message.payload);
}

Result<void> check_queue(const VhostMessage& message, uint64_t index, size_t queue_count) {
  if (index < queue_count) return {};
  return corrupt(fmt::format("{} is for queue {} of {}", name_of(message), index, queue_count));
}

// All descriptors of a received message, wherever they stand in its control data.
void collect_fds(msghdr& received, std::vector<UniqueFd>& into) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&received); part != nullptr;
       part = CMSG_NXTHDR(&received, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      into.emplace_back(fd);
    }
  }
}

}  // namespace

std::string_view vhost_request_name(VhostRequest request) {
  constexpr std::array<std::pair<VhostRequest, std::string_view>, 27> kNames = {
      {{VhostRequest::kGetFeatures, "GET_FEATURES"},
       {VhostRequest::kSetFeatures, "SET_FEATURES"},
       {VhostRequest::kSetOwner, "SET_OWNER"},
       {VhostRequest::kResetOwner, "RESET_OWNER"},
       {VhostRequest::kSetMemTable, "SET_MEM_TABLE"},
       {VhostRequest::kSetVringNum, "SET_VRING_NUM"},
       {VhostRequest::kSetVringAddr, "SET_VRING_ADDR"},
       {VhostRequest::kSetVringBase, "SET_VRING_BASE"},
       {VhostRequest::kGetVringBase, "GET_VRING_BASE"},
       {VhostRequest::kSetVringKick, "SET_VRING_KICK"},
       {VhostRequest::kSetVringCall, "SET_VRING_CALL"},
       {VhostRequest::kSetVringErr, "SET_VRING_ERR"},
       {VhostRequest::kGetProtocolFeatures, "GET_PROTOCOL_FEATURES"},
       {VhostRequest::kSetProtocolFeatures, "SET_PROTOCOL_FEATURES"},
       {VhostRequest::kGetQueueNum, "GET_QUEUE_NUM"},
       {VhostRequest::kSetVringEnable, "SET_VRING_ENABLE"},
       {VhostRequest::kSetBackendReqFd, "SET_BACKEND_REQ_FD"},
       {VhostRequest::kGetConfig, "GET_CONFIG"},
       {VhostRequest::kSetConfig, "SET_CONFIG"},
       {VhostRequest::kGetInflightFd, "GET_INFLIGHT_FD"},
       {VhostRequest::kSetInflightFd, "SET_INFLIGHT_FD"},
       {VhostRequest::kResetDevice, "RESET_DEVICE"},
       {VhostRequest::kGetMaxMemSlots, "GET_MAX_MEM_SLOTS"},
       {VhostRequest::kAddMemReg, "ADD_MEM_REG"},
       {VhostRequest::kRemMemReg, "REM_MEM_REG"},
       {VhostRequest::kSetStatus, "SET_STATUS"},
       {VhostRequest::kGetStatus, "GET_STATUS"}}};
  for (const auto& [number, name] : kNames)
    if (number == request) return name;
  return "request";
}

Result<std::optional<VhostMessage>> VhostReader::read(int socket) {
  if (got_bytes_ < sizeof(header_)) {
    const auto bytes = std::as_writable_bytes(std::span(&header_, 1));
    auto complete = fill(socket, bytes.subspan(got_bytes_));
    if (!complete) return complete.error();
    if (!*complete) return std::optional<VhostMessage>();
    SKIFF_RETURN_IF_ERROR(check_header());
    message_.request = header_.request;
    message_.is_reply = (header_.flags & kVhostFlagReply) != 0;
    message_.needs_reply = (header_.flags & kVhostFlagNeedReply) != 0;
    message_.payload.resize(header_.size_bytes);
  }
  const auto payload = std::span(message_.payload);
  if (got_bytes_ < sizeof(header_) + payload.size()) {
    auto complete = fill(socket, payload.subspan(got_bytes_ - sizeof(header_)));
    if (!complete) return complete.error();
    if (!*complete) return std::optional<VhostMessage>();
  }
  got_bytes_ = 0;
  return std::optional<VhostMessage>(std::exchange(message_, {}));
}

Result<void> VhostReader::check_header() const {
  if ((header_.flags & kVhostVersionMask) != kVhostVersion)
    return corrupt(fmt::format("A message of version {}, not {}", header_.flags & kVhostVersionMask,
                               kVhostVersion));
  if (header_.size_bytes > kVhostPayloadMaxBytes)
    return corrupt(
        fmt::format("A message with a payload of {} bytes, more than any has", header_.size_bytes));
  return {};
}

// True when `target` is filled to its end.
Result<bool> VhostReader::fill(int socket, std::span<std::byte> target) {
  while (!target.empty()) {
    alignas(cmsghdr) std::array<std::byte, kControlBytes> control;
    iovec part{.iov_base = target.data(), .iov_len = target.size()};
    msghdr received = {};
    received.msg_iov = &part;
    received.msg_iovlen = 1;
    received.msg_control = control.data();
    received.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket, &received, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (got < 0 && errno != ECONNRESET) return Error::from_errno(errno, "Receiving a message");
    collect_fds(received, message_.fds);
    if (got <= 0) {
      if (got_bytes_ == 0) return Error(ErrorKind::kCancelled, "The peer closed the connection");
      return corrupt("The peer went away in the middle of a message");
    }
    if ((received.msg_flags & MSG_CTRUNC) != 0 || message_.fds.size() > kVhostFdsMax)
      return corrupt(fmt::format("A message with more than {} descriptors", kVhostFdsMax));
    got_bytes_ += static_cast<size_t>(got);
    target = target.subspan(static_cast<size_t>(got));
  }
  return true;
}

VhostWriter::VhostWriter(const VhostMessage& message, std::span<const int> fds)
    : fds_(fds.begin(), fds.end()) {
  VhostHeader header{.request = message.request,
                     .flags = kVhostVersion,
                     .size_bytes = static_cast<uint32_t>(message.payload.size())};
  if (message.is_reply) header.flags |= kVhostFlagReply;
  if (message.needs_reply) header.flags |= kVhostFlagNeedReply;
  const auto bytes = std::as_bytes(std::span(&header, 1));
  bytes_.assign(bytes.begin(), bytes.end());
  bytes_.insert(bytes_.end(), message.payload.begin(), message.payload.end());
}

Result<bool> VhostWriter::write(int socket) {
  while (sent_bytes_ < bytes_.size()) {
    const auto rest = std::span(bytes_).subspan(sent_bytes_);
    iovec part{.iov_base = rest.data(), .iov_len = rest.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<std::byte, kControlBytes> control = {};
    // They go with the first byte.
    if (sent_bytes_ == 0 && !fds_.empty()) {
      const size_t fd_bytes = fds_.size() * sizeof(int);
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fd_bytes);
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(fd_bytes);
      std::memcpy(CMSG_DATA(rights), fds_.data(), fd_bytes);
    }
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
      return Error(ErrorKind::kCancelled, "The peer closed the connection");
    if (sent < 0) return Error::from_errno(errno, "Sending a message");
    sent_bytes_ += static_cast<size_t>(sent);
  }
  return true;
}

Result<void> parse_empty(const VhostMessage& message) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 0));
  if (!message.payload.empty()) return wrong_size(message);
  return {};
}

Result<uint64_t> parse_u64(const VhostMessage& message) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 0));
  return parse_exactly<uint64_t>(message);
}

Result<VhostVringState> parse_vring_state(const VhostMessage& message, size_t queue_count) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 0));
  auto state = parse_exactly<VhostVringState>(message);
  if (state) SKIFF_RETURN_IF_ERROR(check_queue(message, state->index, queue_count));
  return state;
}

Result<VhostVringAddress> parse_vring_address(const VhostMessage& message, size_t queue_count) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 0));
  auto address = parse_exactly<VhostVringAddress>(message);
  if (address) SKIFF_RETURN_IF_ERROR(check_queue(message, address->index, queue_count));
  return address;
}

Result<VhostVringFd> parse_vring_fd(VhostMessage& message, size_t queue_count) {
  const auto value = parse_exactly<uint64_t>(message);
  if (!value) return value.error();
  if ((*value & ~(kVringIndexMask | kVringNoFd)) != 0)
    return corrupt(fmt::format("{} has unknown flags: {:#x}", name_of(message), *value));
  SKIFF_RETURN_IF_ERROR(check_queue(message, *value & kVringIndexMask, queue_count));
  const bool has_fd = (*value & kVringNoFd) == 0;
  SKIFF_RETURN_IF_ERROR(check_fds(message, has_fd ? 1 : 0));
  VhostVringFd result{.index = static_cast<uint16_t>(*value & kVringIndexMask), .fd = {}};
  if (has_fd) result.fd = std::move(message.fds.front());
  return result;
}

Result<std::vector<VhostMemoryRegion>> parse_memory_table(const VhostMessage& message) {
  const auto payload = std::span<const std::byte>(message.payload);
  if (payload.size() < sizeof(VhostMemoryTableHeader)) return wrong_size(message);
  const auto header = copy_from<VhostMemoryTableHeader>(payload);
  if (header.count > kVhostTableRegionsMax)
    return corrupt(fmt::format("{} has {} regions, at most {} are allowed", name_of(message),
                               header.count, kVhostTableRegionsMax));
  if (payload.size() != sizeof(header) + header.count * sizeof(VhostMemoryRegion))
    return wrong_size(message);
  SKIFF_RETURN_IF_ERROR(check_fds(message, header.count));
  std::vector<VhostMemoryRegion> regions(header.count);
  for (size_t i = 0; i < regions.size(); ++i)
    regions[i] = copy_from<VhostMemoryRegion>(
        payload.subspan(sizeof(header) + i * sizeof(VhostMemoryRegion)));
  return regions;
}

Result<VhostMemoryRegion> parse_memory_region(const VhostMessage& message, RegionFd fd) {
  // Some front ends send one that is not needed; it is closed with the message.
  if (fd == RegionFd::kRequired || message.fds.size() > 1)
    SKIFF_RETURN_IF_ERROR(check_fds(message, 1));
  const auto single = parse_exactly<VhostSingleRegion>(message);
  if (!single) return single.error();
  return single->region;
}

Result<VhostConfigAccess> parse_config(const VhostMessage& message) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 0));
  const auto payload = std::span<const std::byte>(message.payload);
  if (payload.size() < sizeof(VhostConfigHeader)) return wrong_size(message);
  const auto header = copy_from<VhostConfigHeader>(payload);
  const auto bytes = payload.subspan(sizeof(header));
  if (bytes.size() != header.size_bytes) return wrong_size(message);
  if (header.offset > kVhostConfigMaxBytes ||
      header.size_bytes > kVhostConfigMaxBytes - header.offset)
    return corrupt(fmt::format("{} is of {} bytes at {}, outside a configuration of {}",
                               name_of(message), header.size_bytes, header.offset,
                               kVhostConfigMaxBytes));
  return VhostConfigAccess{.offset = header.offset, .flags = header.flags, .bytes = bytes};
}

Result<VhostInflight> parse_inflight(const VhostMessage& message, size_t fd_count) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, fd_count));
  // The padding at its end is not everybody's.
  constexpr size_t kFieldBytes = offsetof(VhostInflight, padding);
  if (message.payload.size() != kFieldBytes && message.payload.size() != sizeof(VhostInflight))
    return wrong_size(message);
  VhostInflight inflight;
  std::memcpy(static_cast<void*>(&inflight), message.payload.data(), kFieldBytes);
  return inflight;
}

Result<UniqueFd> parse_lone_fd(VhostMessage& message) {
  SKIFF_RETURN_IF_ERROR(check_fds(message, 1));
  if (!message.payload.empty()) return wrong_size(message);
  return std::move(message.fds.front());
}

}  // namespace skiff::devices
