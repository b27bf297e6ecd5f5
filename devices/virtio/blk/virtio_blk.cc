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
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "devices/virtio/blk/blk_command.h"
#include "devices/virtio/blk/blk_queue_control.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"
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

uint64_t features_of(const VirtioBlk::Options& options) {
  const block::BlockBackend& image = *options.image;
  // FLUSH is offered by read-only disks as well: 5.2.5.2, "SHOULD always".
  uint64_t features = bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) |
                      bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_TOPOLOGY) |
                      bit(VIRTIO_BLK_F_FLUSH) | kVirtioRingReset;
  if (options.queues.size() > 1) features |= bit(VIRTIO_BLK_F_MQ);
  if (image.is_read_only()) return features | bit(VIRTIO_BLK_F_RO);
  features |= bit(VIRTIO_BLK_F_CONFIG_WCE);
  if (options.discard && image.limits().discard) features |= bit(VIRTIO_BLK_F_DISCARD);
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
  if (options.queues.empty() || options.queues.size() > kQueuesMax) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {} cannot have {} queues; 1 to {} are possible",
                             options.image->name(), options.queues.size(), kQueuesMax));
  }
  std::unique_ptr<VirtioBlk> device(new VirtioBlk(options));
  for (const QueueHome& home : options.queues) {
    auto queue = BlkQueueControl::create({.runner = {.memory = options.memory,
                                                     .name = options.name,
                                                     .index = device->queue_count(),
                                                     .size_max = options.queue_size},
                                          .home = home,
                                          .shared = &device->shared_,
                                          .publishers = device.get()});
    if (!queue) return queue.error();
    device->queues_.push_back(*std::move(queue));
    device->note_vcpu_loop(home);
  }
  return device;
}

VirtioBlk::VirtioBlk(const Options& options)
    : name_(options.name),
      features_(features_of(options)),
      interrupt_target_changed_(options.interrupt_target_changed) {
  shared_.image = options.image;
  shared_.timed = options.timed;
  shared_.may_unmap = options.discard;
  shared_.errors = options.errors;
  shared_.stopped = options.stopped;
  shared_.active = options.active;
  std::ranges::copy(std::as_bytes(std::span(options.serial)), shared_.serial.begin());
  fill_config(options);
}

VirtioBlk::~VirtioBlk() = default;

// 5.2.4.
void VirtioBlk::fill_config(const Options& options) {
  const block::BlockLimits& limits = shared_.image->limits();
  const uint32_t block_sectors = std::max<uint32_t>(limits.physical_block_bytes / kSectorBytes, 1);
  capacity_sectors_ = shared_.image->size_bytes() / kSectorBytes;
  config_.size_max = kSegmentBytesMax;
  config_.seg_max = std::min(
      {uint32_t{options.queue_size} - kOtherDescriptors, kSegmentsMax, options.segments_max});
  config_.blk_size = kSectorBytes;
  config_.physical_block_exp = static_cast<uint8_t>(std::bit_width(block_sectors) - 1);
  config_.min_io_size = static_cast<uint16_t>(std::min<uint32_t>(block_sectors, UINT16_MAX));
  config_.num_queues = static_cast<uint16_t>(options.queues.size());
  const bool discard = options.discard && limits.discard;
  if (discard) {
    config_.max_discard_sectors = kDiscardSectorsMax;
    config_.max_discard_seg = 1;
    config_.discard_sector_alignment = std::max(block_sectors, kDiscardAlignmentSectors);
  }
  if (limits.write_zeroes) {
    config_.max_write_zeroes_sectors = kDiscardSectorsMax;
    config_.max_write_zeroes_seg = 1;
    config_.write_zeroes_may_unmap = discard ? 1 : 0;
  }
}

void VirtioBlk::read_config(uint64_t offset_bytes, std::span<uint8_t> data) const {
  virtio_blk_config now = config_;
  now.capacity = capacity_sectors_.load(std::memory_order_relaxed);
  now.wce = shared_.write_back.load(std::memory_order_relaxed) ? 1 : 0;
  const auto bytes = std::as_bytes(std::span(&now, 1));
  std::ranges::fill(data, uint8_t{0});
  if (offset_bytes >= bytes.size() || data.empty()) return;
  const auto part = bytes.subspan(offset_bytes);
  std::memcpy(data.data(), part.data(), std::min(part.size(), data.size()));
}

void VirtioBlk::write_config(uint64_t offset_bytes, std::span<const uint8_t> data) {
  // The only field that a driver may write, a single byte.
  if (offset_bytes != offsetof(virtio_blk_config, wce) || data.size() != 1) return;
  if ((features_ & bit(VIRTIO_BLK_F_CONFIG_WCE)) == 0) return;
  shared_.write_back.store(data.front() != 0, std::memory_order_relaxed);
}

void VirtioBlk::attach(VirtioTransport& transport) { transport_ = &transport; }

void VirtioBlk::capacity_changed() {
  capacity_sectors_.store(shared_.image->size_bytes() / kSectorBytes, std::memory_order_relaxed);
  transport_->interrupt_config();
}

void VirtioBlk::interrupt_target_changed(QueueIndex queue, std::optional<MsiMessage> message) {
  if (interrupt_target_changed_) interrupt_target_changed_(queue, message);
}

void VirtioBlk::start(const VirtioStart& start) {
  SKIFF_CHECK(transport_ != nullptr && start.queues.size() == queues_.size());
  const loop::MutexLock lock(mutex_);
  SKIFF_CHECK(!std::exchange(is_started_, true));
  agreed_features_ = start.features;
  for (size_t i = 0; i < queues_.size(); ++i)
    if (start.queues[i].size != 0) queues_[i]->start(start.queues[i], start.features, *transport_);
}

void VirtioBlk::stop(std::function<void()> stopped) {
  {
    const loop::MutexLock lock(mutex_);
    if (!std::exchange(is_started_, false)) return stopped();
  }
  // Shared by the queues' callbacks, the last of which calls.
  struct Countdown {
    std::atomic<size_t> left;
    std::function<void()> stopped;
  };
  auto countdown = std::make_shared<Countdown>(queues_.size(), std::move(stopped));
  for (const auto& queue : queues_) {
    queue->stop([this, countdown] {
      if (countdown->left.fetch_sub(1) != 1) return;
      // A reset brings the configuration back to what it was.
      shared_.write_back.store(true, std::memory_order_relaxed);
      countdown->stopped();
    });
  }
}

void VirtioBlk::reset_queue(QueueIndex queue, std::function<void()> done) {
  queues_[queue]->stop(std::move(done));
}

void VirtioBlk::start_queue(QueueIndex queue, const QueueLayout& layout) {
  const loop::MutexLock lock(mutex_);
  if (is_started_) queues_[queue]->start(layout, agreed_features_, *transport_);
}

void VirtioBlk::move_queue(QueueIndex queue, const QueueHome& home, std::function<void()> moved) {
  note_vcpu_loop(home);
  queues_[queue]->move(home, std::move(moved));
}

void VirtioBlk::retry_failed() {
  for (const auto& queue : queues_) queue->retry();
}

void VirtioBlk::note_vcpu_loop(const QueueHome& home) {
  if (home.mode != SubmitMode::kVcpu) return;
  const loop::MutexLock lock(mutex_);
  if (std::ranges::find(vcpu_loops_, home.loop) == vcpu_loops_.end())
    vcpu_loops_.push_back(home.loop);
}

loop::EventLoop* VirtioBlk::home_of_this_thread() const {
  const loop::MutexLock lock(mutex_);
  const auto found = std::ranges::find_if(
      vcpu_loops_, [](const loop::EventLoop* loop) { return loop->is_current(); });
  return found == vcpu_loops_.end() ? nullptr : *found;
}

std::shared_ptr<UsedPublisher> VirtioBlk::publisher_on(loop::EventLoop& loop) {
  const loop::MutexLock lock(mutex_);
  std::erase_if(publishers_, [](const auto& other) { return other.publisher.expired(); });
  // Those of other loops are not touched: the last to hold one must be on its loop's thread.
  for (const auto& [home, publisher] : publishers_)
    if (home == &loop)
      if (auto alive = publisher.lock()) return alive;
  auto made = std::make_shared<UsedPublisher>(loop, *transport_);
  publishers_.push_back({&loop, made});
  return made;
}

}  // namespace skiff::devices
