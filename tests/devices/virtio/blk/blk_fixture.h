// SPDX-License-Identifier: GPL-2.0-or-later
// BlkFixture: a virtio-blk device with a driver before it, the way most of its tests want it.
//
// Thread: the test's.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {

// struct virtio_blk_req up to its data (virtio 1.2, 5.2.6).
struct BlkHeader {
  uint32_t type = 0;
  uint32_t reserved = 0;
  uint64_t sector = 0;
};
struct BlkSegment {
  uint64_t sector = 0;
  uint32_t sector_count = 0;
  uint32_t flags = 0;
};

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

class BlkFixture : public ::testing::Test {
 protected:
  static constexpr uint8_t kNoStatus = 0xee;

  // A request the driver has offered.
  struct Offered {
    uint16_t head = 0;
    GuestAddress data;
    GuestAddress status;
  };

  void make(const block::FakeBackend::Options& image_options, uint16_t queue_size = 8) {
    image_ = std::make_unique<block::FakeBackend>(image_options);
    driver_ = std::make_unique<GuestDriver>(memory_, GuestDriver::Options{
                                                         .queue_size = queue_size,
                                                         .features = kVirtioRingIndirectDesc,
                                                         .indirect_entries = 8,
                                                     });
    auto device =
        VirtioBlk::create({.queues = {{&loop_.loop()}},
                           .memory = &memory_.memory(),
                           .image = image_.get(),
                           .serial = "disk-1",
                           .queue_size = queue_size,
                           .errors = errors_,
                           .stopped = [this](const BlkStop& stop) { stops_.push_back(stop); }});
    ASSERT_TRUE(device) << device.error().message();
    device_ = *std::move(device);
    device_->attach(transport_);
  }
  void start(std::optional<uint64_t> features = {}) {
    device_->start(
        {.features = features.value_or(device_->features()) | driver_->features() | kVirtioVersion1,
         .queues = {driver_->layout()}});
    loop_.run_until_idle();
  }
  void make_and_start(const block::FakeBackend::Options& image_options) {
    ASSERT_NO_FATAL_FAILURE(make(image_options));
    start();
  }
  // Stops the device if the test has not; everything must come back.
  void TearDown() override {
    if (!device_) return;
    bool stopped = false;
    device_->stop([&] { stopped = true; });
    loop_.run_until_idle();
    while (!stopped && image_->has_channel() && image_->channel().in_flight() > 0) {
      image_->channel().fail(0, -EIO);
      loop_.run_until_idle();
    }
    EXPECT_TRUE(stopped);
  }

  void kick() {
    device_->doorbell(0).notify();
    loop_.run_until_idle();
  }
  GuestAddress status_byte() {
    const GuestAddress at = driver_->allocate(1);
    memory_.memory().store(at, kNoStatus);
    return at;
  }
  Offered offer_read(uint64_t sector, uint32_t bytes) {
    const Offered offered{.data = driver_->allocate(bytes), .status = status_byte()};
    return offer(offered,
                 {header(VIRTIO_BLK_T_IN, sector), DriverBuffer::writable(offered.data, bytes),
                  DriverBuffer::writable(offered.status, 1)});
  }
  Offered offer_write(uint64_t sector, std::span<const std::byte> content) {
    const DriverBuffer data = driver_->allocate_with(content);
    const Offered offered{.data = data.address, .status = status_byte()};
    return offer(offered, {header(VIRTIO_BLK_T_OUT, sector), data,
                           DriverBuffer::writable(offered.status, 1)});
  }
  Offered offer_plain(uint32_t type) {
    const Offered offered{.data = {}, .status = status_byte()};
    return offer(offered, {header(type, 0), DriverBuffer::writable(offered.status, 1)});
  }
  Offered offer_segment(uint32_t type, const BlkSegment& segment) {
    const Offered offered{.data = {}, .status = status_byte()};
    return offer(offered, {header(type, 0), driver_->allocate_with(bytes_of(segment)),
                           DriverBuffer::writable(offered.status, 1)});
  }
  Offered offer(Offered offered, std::initializer_list<DriverBuffer> chain) {
    offered.head = driver_->offer(chain);
    return offered;
  }
  DriverBuffer header(uint32_t type, uint64_t sector) {
    const BlkHeader value{.type = type, .sector = sector};
    return driver_->allocate_with(bytes_of(value));
  }

  uint8_t status(const Offered& offered) const {
    return memory_.memory().load<uint8_t>(offered.status).value_or(0xff);
  }
  std::vector<std::byte> data(const Offered& offered, size_t size_bytes) const {
    std::vector<std::byte> bytes(size_bytes);
    EXPECT_TRUE(memory_.memory().read(offered.data, bytes));
    return bytes;
  }

  loop::ManualLoop loop_;
  FakeGuestMemory memory_{1 << 20};
  FakeTransport transport_;
  block::ErrorPolicies errors_;
  std::vector<BlkStop> stops_;
  std::unique_ptr<block::FakeBackend> image_;
  std::unique_ptr<GuestDriver> driver_;
  std::unique_ptr<VirtioBlk> device_;
};

}  // namespace skiff::devices
