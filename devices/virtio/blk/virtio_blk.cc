// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/virtio_blk.h"

#include <linux/virtio_blk.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "block/block_channel.h"
#include "devices/virtio/blk/blk_command.h"
#include "devices/virtio/queue_set.h"
#include "devices/virtio/virtio_device.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Beside them in a chain: header and status (5.2.6), each of which Linux gives a descriptor.
constexpr uint16_t kOtherDescriptors = 2;
constexpr uint32_t kSegmentsMax = 254;
// Keeps the largest conforming request below what a channel moves at once.
constexpr uint32_t kSegmentBytesMax = 4u << 20;
static_assert(uint64_t{kSegmentsMax} * kSegmentBytesMax <= block::kMaxTransferBytes);
constexpr uint32_t kDiscardSectorsMax = (1u << 30) / kSectorBytes;
constexpr uint32_t kDiscardAlignmentSectors = 4096 / kSectorBytes;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

uint64_t features_of(const block::BlockBackend& image) {
  // FLUSH is offered by read-only disks as well: 5.2.5.2, "SHOULD always".
  uint64_t features = bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) |
                      bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_TOPOLOGY) |
                      bit(VIRTIO_BLK_F_FLUSH);
  if (image.is_read_only()) return features | bit(VIRTIO_BLK_F_RO);
  features |= bit(VIRTIO_BLK_F_CONFIG_WCE);
  if (image.limits().discard) features |= bit(VIRTIO_BLK_F_DISCARD);
  if (image.limits().write_zeroes) features |= bit(VIRTIO_BLK_F_WRITE_ZEROES);
  return features;
}

}  // namespace

Result<std::unique_ptr<VirtioBlk>> VirtioBlk::create(const Options& options) {
  if (options.serial.size() > kBlkIdBytes) {
    return Error(
        ErrorKind::kInvalidArgument,
        fmt::format("The serial number {} of disk {} has {} bytes; at most {} are possible",
                    options.serial, options.image->name(), options.serial.size(), kBlkIdBytes));
  }
  if (!std::has_single_bit(options.queue_size) || options.queue_size < 4 ||
      options.queue_size > 1024) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("The queue size {} of disk {} is no power of two from 4 to 1024",
                             options.queue_size, options.image->name()));
  }
  auto queues = QueueSet::create({.home = options.home,
                                  .memory = options.memory,
                                  .name = options.name,
                                  .queue_sizes = {options.queue_size}});
  if (!queues) return queues.error();
  return std::unique_ptr<VirtioBlk>(new VirtioBlk(options, *std::move(queues)));
}

VirtioBlk::VirtioBlk(const Options& options, std::unique_ptr<QueueSet> queues)
    : name_(options.name),
      features_(features_of(*options.image)),
      queue_(*options.home, options.queue_size, shared_),
      queues_(std::move(queues)) {
  shared_.image = options.image;
  shared_.errors = options.errors;
  shared_.stopped = options.stopped;
  std::ranges::copy(std::as_bytes(std::span(options.serial)), shared_.serial.begin());
  fill_config(options.queue_size);
}

VirtioBlk::~VirtioBlk() = default;

// 5.2.4.
void VirtioBlk::fill_config(uint16_t queue_size) {
  const block::BlockLimits& limits = shared_.image->limits();
  const uint32_t block_sectors = std::max<uint32_t>(limits.physical_block_bytes / kSectorBytes, 1);
  capacity_sectors_ = shared_.image->size_bytes() / kSectorBytes;
  config_.size_max = kSegmentBytesMax;
  config_.seg_max = std::min<uint32_t>(queue_size - kOtherDescriptors, kSegmentsMax);
  config_.blk_size = kSectorBytes;
  config_.physical_block_exp = static_cast<uint8_t>(std::bit_width(block_sectors) - 1);
  config_.min_io_size = static_cast<uint16_t>(std::min<uint32_t>(block_sectors, UINT16_MAX));
  config_.num_queues = 1;
  if (limits.discard) {
    config_.max_discard_sectors = kDiscardSectorsMax;
    config_.max_discard_seg = 1;
    config_.discard_sector_alignment = std::max(block_sectors, kDiscardAlignmentSectors);
  }
  if (limits.write_zeroes) {
    config_.max_write_zeroes_sectors = kDiscardSectorsMax;
    config_.max_write_zeroes_seg = 1;
    config_.write_zeroes_may_unmap = limits.discard ? 1 : 0;
  }
}

void VirtioBlk::read_config(uint64_t offset_bytes, std::span<uint8_t> data) const {
  virtio_blk_config now = config_;
  now.capacity = capacity_sectors_.load(std::memory_order_relaxed);
  now.wce = shared_.write_back.load(std::memory_order_relaxed) ? 1 : 0;
  const auto bytes = std::as_bytes(std::span(&now, 1));
  std::ranges::fill(data, uint8_t{0});
  if (offset_bytes >= bytes.size()) return;
  const auto part = bytes.subspan(offset_bytes);
  std::memcpy(data.data(), part.data(), std::min(part.size(), data.size()));
}

void VirtioBlk::write_config(uint64_t offset_bytes, std::span<const uint8_t> data) {
  // The only field that a driver may write, a single byte.
  if (offset_bytes != offsetof(virtio_blk_config, wce) || data.size() != 1) return;
  if ((features_ & bit(VIRTIO_BLK_F_CONFIG_WCE)) == 0) return;
  shared_.write_back.store(data.front() != 0, std::memory_order_relaxed);
}

void VirtioBlk::attach(VirtioTransport& transport) {
  transport_ = &transport;
  queues_->attach(transport, *this);
}

void VirtioBlk::capacity_changed() {
  capacity_sectors_.store(shared_.image->size_bytes() / kSectorBytes, std::memory_order_relaxed);
  transport_->interrupt_config();
}

void VirtioBlk::start(const VirtioStart& start) { queues_->start(start); }

void VirtioBlk::stop(std::function<void()> stopped) { queues_->stop(std::move(stopped)); }

void VirtioBlk::retry_failed() {
  queues_->post_if_started([this] { queue_.retry(); });
}

void VirtioBlk::queues_stopped() {
  queue_.close();
  // A reset brings the configuration back to what it was.
  shared_.write_back.store(true, std::memory_order_relaxed);
}

}  // namespace skiff::devices
