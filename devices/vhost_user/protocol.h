// SPDX-License-Identifier: GPL-2.0-or-later
// The vhost-user protocol's numbers and structures (QEMU, docs/interop/vhost-user).
//
// All in the machine's byte order; the processes share a machine. Thread: any; values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace skiff::devices {

// Front end to back end.
enum class VhostRequest : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSetBackendReqFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
  kSetStatus = 39,
  kGetStatus = 40,
};
// "SET_MEM_TABLE", for messages; "request" for a number that is not among them.
std::string_view vhost_request_name(VhostRequest request);

// Back end to front end, over the channel of kSetBackendReqFd.
enum class VhostBackendRequest : uint32_t { kConfigChange = 2 };

// The feature bit that says that there are protocol features.
inline constexpr uint64_t kVhostProtocolFeatures = uint64_t{1} << 30;

// Protocol features.
inline constexpr uint64_t kVhostMultiqueue = uint64_t{1} << 0;
inline constexpr uint64_t kVhostReplyAck = uint64_t{1} << 3;
inline constexpr uint64_t kVhostBackendReq = uint64_t{1} << 5;
inline constexpr uint64_t kVhostConfig = uint64_t{1} << 9;
inline constexpr uint64_t kVhostInflightShmfd = uint64_t{1} << 12;
inline constexpr uint64_t kVhostResetDevice = uint64_t{1} << 13;
inline constexpr uint64_t kVhostConfigureMemSlots = uint64_t{1} << 15;
inline constexpr uint64_t kVhostStatus = uint64_t{1} << 16;

struct VhostHeader {
  uint32_t request = 0;
  uint32_t flags = 0;
  uint32_t size_bytes = 0;  // Of the payload.
};
static_assert(sizeof(VhostHeader) == 12);
inline constexpr uint32_t kVhostVersionMask = 3;
inline constexpr uint32_t kVhostVersion = 1;
inline constexpr uint32_t kVhostFlagReply = 1u << 2;
inline constexpr uint32_t kVhostFlagNeedReply = 1u << 3;

struct VhostVringState {
  uint32_t index = 0;
  uint32_t value = 0;
};
static_assert(sizeof(VhostVringState) == 8);

// Addresses of the front end's own, to be found in the memory regions.
struct VhostVringAddress {
  uint32_t index = 0;
  uint32_t flags = 0;
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t available = 0;
  uint64_t log = 0;
};
static_assert(sizeof(VhostVringAddress) == 40);

struct VhostMemoryRegion {
  uint64_t guest_address = 0;
  uint64_t size_bytes = 0;
  uint64_t user_address = 0;
  uint64_t file_offset = 0;
};
static_assert(sizeof(VhostMemoryRegion) == 32);
struct VhostMemoryTableHeader {
  uint32_t count = 0;
  uint32_t padding = 0;
};
struct VhostSingleRegion {
  uint64_t padding = 0;
  VhostMemoryRegion region;
};
static_assert(sizeof(VhostSingleRegion) == 40);

struct VhostConfigHeader {
  uint32_t offset = 0;
  uint32_t size_bytes = 0;
  uint32_t flags = 0;
};
static_assert(sizeof(VhostConfigHeader) == 12);
inline constexpr uint32_t kVhostConfigMaxBytes = 256;

struct VhostInflight {
  uint64_t map_bytes = 0;
  uint64_t map_offset = 0;
  uint16_t queue_count = 0;
  uint16_t queue_size = 0;
  uint32_t padding = 0;  // Sent by all, as the structure has it on 64-bit machines.
};
static_assert(sizeof(VhostInflight) == 24);

// Of the messages with a queue's eventfd.
inline constexpr uint64_t kVringIndexMask = 0xff;
inline constexpr uint64_t kVringNoFd = uint64_t{1} << 8;

inline constexpr size_t kVhostTableRegionsMax = 8;  // That SET_MEM_TABLE has room for.
inline constexpr size_t kVhostFdsMax = 8;
inline constexpr uint32_t kVhostPayloadMaxBytes = 1024;  // More than any message needs.

}  // namespace skiff::devices
