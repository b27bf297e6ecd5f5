// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/blk_command.h"

#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "block/iovec_copy.h"

namespace skiff::devices {
namespace {

// virtio 1.2, 5.2.6: struct virtio_blk_req up to its data.
struct Header {
  uint32_t type = 0;
  uint32_t reserved = 0;
  uint64_t sector = 0;
};
static_assert(sizeof(Header) == 16);

// 5.2.6: struct virtio_blk_discard_write_zeroes.
struct Segment {
  uint64_t sector = 0;
  uint32_t sector_count = 0;
  uint32_t flags = 0;
};
static_assert(sizeof(Segment) == 16);

template <typename T>
bool copy_once(std::span<const iovec> from, uint64_t skip_bytes, T& into) {
  return block::copy_from_iovec(from, skip_bytes, std::as_writable_bytes(std::span(&into, 1))) ==
         sizeof(T);
}

uint64_t total_bytes(std::span<const iovec> iov) {
  uint64_t total = 0;
  for (const iovec& segment : iov) total += segment.iov_len;
  return total;
}

// The last byte of the device-writable part; its place is the only thing that is fixed about it.
std::byte* last_byte(std::span<const iovec> writable) {
  for (size_t i = writable.size(); i > 0; --i) {
    const iovec& segment = writable[i - 1];
    if (segment.iov_len > 0) return static_cast<std::byte*>(segment.iov_base) + segment.iov_len - 1;
  }
  return nullptr;
}

// [skip, skip + length) of `iov`: a part of it as it is, where the borders agree, else by way of
// `scratch`.
std::span<const iovec> slice(std::span<const iovec> iov, uint64_t skip_bytes, uint64_t length_bytes,
                             std::vector<iovec>& scratch) {
  while (!iov.empty() && skip_bytes >= iov.front().iov_len) {
    skip_bytes -= iov.front().iov_len;
    iov = iov.subspan(1);
  }
  size_t count = 0;
  uint64_t covered_bytes = 0;
  while (count < iov.size() && covered_bytes < skip_bytes + length_bytes)
    covered_bytes += iov[count++].iov_len;
  iov = iov.first(count);
  if (iov.empty() || (skip_bytes == 0 && covered_bytes == length_bytes)) return iov;
  scratch.assign(iov.begin(), iov.end());
  scratch.back().iov_len -= covered_bytes - skip_bytes - length_bytes;
  scratch.front().iov_base = static_cast<std::byte*>(scratch.front().iov_base) + skip_bytes;
  scratch.front().iov_len -= skip_bytes;
  return scratch;
}

// False when the range leaves the disk; sector * 512 may wrap, so sectors are compared.
bool in_range(uint64_t sector, uint64_t length_bytes, const BlkRules& rules) {
  const uint64_t capacity = rules.capacity_bytes / kSectorBytes;
  return sector <= capacity && length_bytes / kSectorBytes <= capacity - sector;
}

void parse_transfer(const Header& header, const BlkRules& rules, BlkCommand& command) {
  command.length_bytes = total_bytes(command.data);
  if (command.length_bytes % kSectorBytes != 0) return;
  if (!in_range(header.sector, command.length_bytes, rules)) return;
  command.kind = BlkCommand::Kind::kIo;
  command.offset_bytes = header.sector * kSectorBytes;
}

// 5.2.6: one segment, as max_discard_seg and max_write_zeroes_seg say.
void parse_segment(std::span<const iovec> readable, const BlkRules& rules, BlkCommand& command) {
  Segment segment;
  if (total_bytes(readable) != sizeof(Header) + sizeof(Segment)) return;
  if (!copy_once(readable, sizeof(Header), segment)) return;
  const bool zeroes = command.op == block::BlockOp::kWriteZeroes;
  // 5.2.6.2: unknown flags, and unmap with a discard, are unsupported.
  const uint32_t known = zeroes ? uint32_t{VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP} : 0;
  if ((segment.flags & ~known) != 0) {
    command.failure = BlkStatus::kUnsupported;
    return;
  }
  const uint64_t length_bytes = uint64_t{segment.sector_count} * kSectorBytes;
  if (!in_range(segment.sector, length_bytes, rules)) return;
  command.kind = BlkCommand::Kind::kIo;
  command.may_unmap = rules.may_unmap && segment.flags != 0;
  command.offset_bytes = segment.sector * kSectorBytes;
  command.length_bytes = length_bytes;
}

}  // namespace

BlkStatus blk_status(int32_t result) {
  if (result == 0) return BlkStatus::kOk;
  return result == -EOPNOTSUPP ? BlkStatus::kUnsupported : BlkStatus::kIoError;
}

BlkCommand parse_blk_command(std::span<const iovec> readable, std::span<const iovec> writable,
                             const BlkRules& rules, std::vector<iovec>& scratch) {
  BlkCommand command;
  command.status = last_byte(writable);
  if (command.status == nullptr) {
    command.kind = BlkCommand::Kind::kMalformed;
    return command;
  }
  Header header;
  if (!copy_once(readable, 0, header)) return command;

  switch (header.type) {
    case VIRTIO_BLK_T_IN:
      command.op = block::BlockOp::kRead;
      command.data = slice(writable, 0, total_bytes(writable) - 1, scratch);
      parse_transfer(header, rules, command);
      break;
    case VIRTIO_BLK_T_OUT:
      command.op = block::BlockOp::kWrite;
      command.data =
          slice(readable, sizeof(Header), total_bytes(readable) - sizeof(Header), scratch);
      parse_transfer(header, rules, command);
      break;
    case VIRTIO_BLK_T_FLUSH:
      command.op = block::BlockOp::kFlush;
      command.kind = BlkCommand::Kind::kIo;
      break;
    case VIRTIO_BLK_T_GET_ID:
      command.data = slice(writable, 0, total_bytes(writable) - 1, scratch);
      command.kind = BlkCommand::Kind::kGetId;
      break;
    case VIRTIO_BLK_T_DISCARD:
      command.op = block::BlockOp::kDiscard;
      command.failure = rules.discard ? BlkStatus::kIoError : BlkStatus::kUnsupported;
      if (rules.discard) parse_segment(readable, rules, command);
      break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
      command.op = block::BlockOp::kWriteZeroes;
      command.failure = rules.write_zeroes ? BlkStatus::kIoError : BlkStatus::kUnsupported;
      if (rules.write_zeroes) parse_segment(readable, rules, command);
      break;
    default:
      command.failure = BlkStatus::kUnsupported;
      break;
  }
  return command;
}

}  // namespace skiff::devices
