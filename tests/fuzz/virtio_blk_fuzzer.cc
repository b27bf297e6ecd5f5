// SPDX-License-Identifier: GPL-2.0-or-later
// A hostile driver before a virtio-blk device with two queues: chains, headers, rings that change
// under the device, resets of a queue and of all, moves and completions in any order. Nothing may
// crash, hang, or be touched that the driver did not offer.
#include <fuzzer/FuzzedDataProvider.h>
#include <linux/virtio_blk.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kMemoryBytes = 64 * 1024;
constexpr uint16_t kQueueSize = 16;
constexpr size_t kQueues = 2;
constexpr uint64_t kRingBytes = 8 * 1024;  // Of one queue's ring and indirect tables.
constexpr uint64_t kBuffers = kQueues * kRingBytes;

class Session {
 public:
  explicit Session(FuzzedDataProvider& input)
      : input_(input), image_({.sectors = 32, .read_only = input.ConsumeBool()}) {
    device_ = *VirtioBlk::create(
        {.queues = std::vector<QueueHome>(kQueues, {&loops_[0].loop(), SubmitMode::kIoThread}),
         .memory = &memory_.memory(),
         .image = &image_,
         .serial = "fuzz",
         .queue_size = kQueueSize,
         .errors = {.write = input.ConsumeBool() ? block::ErrorPolicy::kStop
                                                 : block::ErrorPolicy::kReport}});
    device_->attach(transport_);
    start();
  }
  ~Session() { stop(); }

  void run() {
    for (int steps = 0; steps < 200 && input_.remaining_bytes() > 0; ++steps) step();
  }

 private:
  void step() {
    queue_ = input_.ConsumeIntegralInRange<QueueIndex>(0, kQueues - 1);
    switch (input_.ConsumeIntegralInRange<int>(0, 13)) {
      case 0:
      case 1:
      case 2:
        return offer_chain();
      case 3:
        return offer_descriptor();
      case 4:
        return kick();
      case 5:
      case 6:
        return complete_one();
      case 7:
        return configure();
      case 8:
        stop();
        return start();
      case 9:
        return reset_queue();
      case 10:
        return scribble();
      case 11:
        return move();
      case 12:
        return device_->retry_failed();
      default:
        return driver().set_available_index(input_.ConsumeIntegral<uint16_t>());
    }
  }

  GuestDriver& driver() { return *drivers_[queue_]; }
  void turn() {
    for (int round = 0; round < 4; ++round)
      for (auto& loop : loops_) loop.run_until_idle();
  }

  QueueLayout make_driver(QueueIndex queue, uint64_t ring_features) {
    drivers_[queue] = std::make_unique<GuestDriver>(
        memory_, GuestDriver::Options{.queue_size = kQueueSize,
                                      .features = ring_features,
                                      .indirect_entries = 4,
                                      .base = GuestAddress{queue * kRingBytes},
                                      .arena_bytes = kRingBytes});
    QueueLayout layout = drivers_[queue]->layout();
    // The other queue's ring, a place without RAM, a size that is none.
    if (input_.ConsumeIntegral<uint8_t>() == 0)
      layout.used.value = input_.ConsumeIntegral<uint32_t>();
    if (input_.ConsumeIntegral<uint8_t>() == 0) layout.size = input_.ConsumeIntegral<uint16_t>();
    return layout;
  }
  void start() {
    ring_features_ =
        input_.ConsumeIntegral<uint64_t>() & (kVirtioRingEventIdx | kVirtioRingIndirectDesc);
    // Features that were not offered as well.
    VirtioStart start{.features = ring_features_ | input_.ConsumeIntegral<uint64_t>(),
                      .queues = {}};
    for (QueueIndex i = 0; i < kQueues; ++i) start.queues.push_back(make_driver(i, ring_features_));
    reset_ = {};
    device_->start(start);
    turn();
  }
  // With whatever is in flight; what the image holds has to end first.
  void finish(const bool& ended) {
    turn();
    while (!ended) {
      SKIFF_CHECK(image_.has_channel());
      complete_one();
      turn();
    }
  }
  void stop() {
    bool stopped = false;
    device_->stop([&stopped] { stopped = true; });
    finish(stopped);
    SKIFF_CHECK(!image_.has_channel());
  }
  void reset_queue() {
    if (std::exchange(reset_[queue_], false))
      return device_->start_queue(queue_, make_driver(queue_, ring_features_));
    bool done = false;
    device_->reset_queue(queue_, [&done] { done = true; });
    // The driver does not wait: descriptors change while it goes on.
    scribble();
    finish(done);
    reset_[queue_] = true;
  }
  // Any bytes of any ring, table or buffer, at any time.
  void scribble() {
    const auto at = input_.ConsumeIntegralInRange<uint64_t>(0, kMemoryBytes - 8);
    memory_.memory().store(GuestAddress{at}, input_.ConsumeIntegral<uint64_t>());
  }
  void move() {
    const auto loop = input_.ConsumeIntegralInRange<size_t>(0, loops_.size() - 1);
    device_->move_queue(
        queue_,
        {&loops_[loop].loop(), input_.ConsumeBool() ? SubmitMode::kVcpu : SubmitMode::kPoll},
        [] {});
    if (input_.ConsumeBool()) turn();
  }

  void offer_chain() {
    // Mostly a header the device knows, its place and cuts anywhere behind the ring.
    constexpr std::array<uint32_t, 8> kTypes = {
        VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,          VIRTIO_BLK_T_FLUSH,    VIRTIO_BLK_T_GET_ID,
        VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SCSI_CMD, 0xffffffff};
    const auto place = [&] {
      return GuestAddress{kBuffers +
                          input_.ConsumeIntegralInRange<uint64_t>(0, kMemoryBytes - kBuffers)};
    };
    const GuestAddress header = place();
    memory_.memory().store(header, input_.PickValueInArray(kTypes));
    const uint64_t sector = input_.ConsumeBool() ? input_.ConsumeIntegralInRange<uint64_t>(0, 40)
                                                 : input_.ConsumeIntegral<uint64_t>();
    memory_.memory().store(header + 8, sector);
    std::vector<DriverBuffer> chain;
    uint32_t header_left = input_.ConsumeIntegralInRange<uint32_t>(0, 17);
    if (input_.ConsumeBool()) header_left = 16;
    chain.push_back(DriverBuffer::readable(header, header_left));
    const int parts = input_.ConsumeIntegralInRange<int>(0, 6);
    for (int i = 0; i < parts; ++i) {
      const uint32_t length = input_.ConsumeBool()
                                  ? 512 * input_.ConsumeIntegralInRange<uint32_t>(0, 4)
                                  : input_.ConsumeIntegralInRange<uint32_t>(0, 2000);
      const GuestAddress at = place();
      if (input_.ConsumeBool()) store_segment(at);
      chain.push_back({at, length, input_.ConsumeBool()});
    }
    // The rules say: first what the device reads. Sometimes it is so.
    if (input_.ConsumeBool()) std::ranges::sort(chain, {}, &DriverBuffer::device_writes);
    if (input_.ConsumeBool()) chain.push_back(DriverBuffer::writable(place(), 1));
    const bool indirect = (driver().features() & kVirtioRingIndirectDesc) != 0 &&
                          chain.size() <= 4 && input_.ConsumeBool();
    driver().add(chain,
                 indirect ? GuestDriver::Placement::kIndirect : GuestDriver::Placement::kDirect);
    driver().publish();
  }
  void store_segment(GuestAddress at) {
    memory_.memory().store(
        at, input_.ConsumeIntegral<uint64_t>() & (input_.ConsumeBool() ? 31 : ~uint64_t{0}));
    memory_.memory().store(
        at + 8, input_.ConsumeIntegral<uint32_t>() & (input_.ConsumeBool() ? 7 : ~uint32_t{0}));
    memory_.memory().store(at + 12, input_.ConsumeIntegralInRange<uint32_t>(0, 3));
  }
  void offer_descriptor() {
    driver().write_descriptor(input_.ConsumeIntegralInRange<uint16_t>(0, kQueueSize - 1),
                              {.address = input_.ConsumeIntegralInRange<uint64_t>(0, kMemoryBytes),
                               .length_bytes = input_.ConsumeIntegral<uint32_t>(),
                               .flags = input_.ConsumeIntegral<uint16_t>(),
                               .next = input_.ConsumeIntegralInRange<uint16_t>(0, kQueueSize)});
    driver().offer_head(input_.ConsumeIntegralInRange<uint16_t>(0, kQueueSize));
  }
  void kick() {
    if (input_.ConsumeBool())
      device_->kick(queue_);
    else
      device_->doorbell(queue_).notify();
    turn();
    driver().collect_all();
  }
  void complete_one() {
    if (!image_.has_channel()) return;
    const auto which = input_.ConsumeIntegralInRange<size_t>(0, image_.channels().size() - 1);
    block::FakeChannel* busy = image_.channels()[which];
    for (block::FakeChannel* other : image_.channels())
      if (busy->in_flight() == 0) busy = other;
    if (busy->in_flight() == 0) return;
    block::FakeChannel& channel = *busy;
    const auto index = input_.ConsumeIntegralInRange<size_t>(0, channel.in_flight() - 1);
    // What reaches the image is within it, and its buffers within what was offered: ASan sees.
    const block::BlockRequest& request = *channel.pending()[index];
    SKIFF_CHECK(request.offset_bytes + request.length_bytes <= image_.size_bytes());
    SKIFF_CHECK(request.length_bytes % 512 == 0);
    if (input_.ConsumeBool()) return channel.fail(index, -EIO);
    channel.complete(index);
  }
  void configure() {
    std::array<uint8_t, 32> bytes = {};
    const auto size = input_.ConsumeIntegralInRange<size_t>(0, bytes.size());
    const auto offset = input_.ConsumeBool() ? input_.ConsumeIntegralInRange<uint64_t>(0, 100)
                                             : input_.ConsumeIntegral<uint64_t>();
    device_->read_config(offset, std::span(bytes).first(size));
    device_->write_config(offset, std::span(bytes).first(size));
  }

  FuzzedDataProvider& input_;
  std::vector<loop::ManualLoop> loops_{2};
  FakeGuestMemory memory_{kMemoryBytes};
  FakeTransport transport_;
  block::FakeBackend image_;
  std::array<std::unique_ptr<GuestDriver>, kQueues> drivers_;
  std::unique_ptr<VirtioBlk> device_;
  QueueIndex queue_ = 0;  // Of the present step.
  uint64_t ring_features_ = 0;
  std::array<bool, kQueues> reset_{};
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  skiff::loop::set_log_level(skiff::loop::LogLevel::kOff);
  FuzzedDataProvider input(data, size);
  skiff::devices::Session session(input);
  session.run();
  return 0;
}
