// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/virtio_blk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/testing/fake_channel.h"
#include "devices/testing/guest_driver.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {
namespace {

using block::FakeBackend;
using ::testing::HasSubstr;

constexpr uint64_t kSectors = 64;

class VirtioBlkTest : public BlkFixture {
 protected:
  void SetUp() override {
    make_and_start({.sectors = kSectors, .completion = FakeBackend::Completion::kNextTurn});
  }
  uint8_t run(const Offered& offered) {
    kick();
    used_ = driver_->collect_all();
    return status(offered);
  }
  virtio_blk_config config() const {
    virtio_blk_config config;
    device_->read_config(0, {reinterpret_cast<uint8_t*>(&config), sizeof(config)});
    return config;
  }
  bool offers(unsigned bit) const { return (device_->features() >> bit & 1) != 0; }

  std::vector<UsedElement> used_;  // By the last run().
};

TEST_F(VirtioBlkTest, WriteThenReadGivesTheSameBytes) {
  std::vector<std::byte> content(1536);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i % 253);
  EXPECT_EQ(run(offer_write(5, content)), VIRTIO_BLK_S_OK);
  EXPECT_TRUE(std::ranges::equal(content, std::span(image_->bytes()).subspan(5 * 512, 1536)));
  const Offered read = offer_read(5, 1536);
  EXPECT_EQ(run(read), VIRTIO_BLK_S_OK);
  EXPECT_EQ(data(read, 1536), content);
}

TEST_F(VirtioBlkTest, SectorsBehindTheEndFailAlsoWhereTheyWrap) {
  for (const uint64_t sector :
       {kSectors, kSectors + 1, (uint64_t{1} << 55) - 1, uint64_t{1} << 55, ~uint64_t{0}}) {
    EXPECT_EQ(run(offer_read(sector, 512)), VIRTIO_BLK_S_IOERR) << sector;
  }
  EXPECT_EQ(run(offer_read(kSectors - 1, 1024)), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(run(offer_read(kSectors - 1, 512)), VIRTIO_BLK_S_OK);
  EXPECT_EQ(image_->requests(), 1u);
}

TEST_F(VirtioBlkTest, LengthThatIsNoMultipleOfASectorFails) {
  EXPECT_EQ(run(offer_read(0, 511)), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(run(offer_read(0, 513)), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(run(offer_write(0, std::vector<std::byte>(100))), VIRTIO_BLK_S_IOERR);
}

TEST_F(VirtioBlkTest, UnknownTypeIsUnsupported) {
  EXPECT_EQ(run(offer_plain(0x12345)), VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(run(offer_plain(VIRTIO_BLK_T_SECURE_ERASE)), VIRTIO_BLK_S_UNSUPP);
}

TEST_F(VirtioBlkTest, FlushReachesTheImage) {
  EXPECT_EQ(run(offer_plain(VIRTIO_BLK_T_FLUSH)), VIRTIO_BLK_S_OK);
  EXPECT_EQ(image_->requests(), 1u);
}

TEST_F(VirtioBlkTest, SerialNumberIsPaddedWithZeroes) {
  const Offered id{.data = driver_->allocate(20), .status = status_byte()};
  EXPECT_EQ(run(offer(id, {header(VIRTIO_BLK_T_GET_ID, 0), DriverBuffer::writable(id.data, 20),
                           DriverBuffer::writable(id.status, 1)})),
            VIRTIO_BLK_S_OK);
  const auto bytes = data(id, 20);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 20),
            std::string("disk-1") + std::string(14, '\0'));
  EXPECT_EQ(used_.at(0).written_bytes, 21u);
}

TEST_F(VirtioBlkTest, SerialNumberIsCutToASmallerBuffer) {
  const Offered id{.data = driver_->allocate(4), .status = status_byte()};
  run(offer(id, {header(VIRTIO_BLK_T_GET_ID, 0), DriverBuffer::writable(id.data, 4),
                 DriverBuffer::writable(id.status, 1)}));
  EXPECT_EQ(status(id), VIRTIO_BLK_S_OK);
  EXPECT_EQ(data(id, 4)[3], std::byte{'k'});
}

// 2.7.4: the driver may cut a request into descriptors as it likes.
TEST_F(VirtioBlkTest, HeaderDataAndStatusMayBeSplitAnywhere) {
  std::vector<std::byte> content(1024);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i % 241);
  const BlkHeader value{.type = VIRTIO_BLK_T_OUT, .sector = 2};
  std::vector<std::byte> request(bytes_of(value).begin(), bytes_of(value).end());
  request.insert(request.end(), content.begin(), content.end());
  const Offered write{.data = {}, .status = status_byte()};
  const auto all = std::span<const std::byte>(request);
  EXPECT_EQ(run(offer(write, {driver_->allocate_with(all.first(3)),
                              driver_->allocate_with(all.subspan(3, 700)),
                              driver_->allocate_with(all.subspan(703)),
                              DriverBuffer::writable(write.status, 1)})),
            VIRTIO_BLK_S_OK);
  EXPECT_TRUE(std::ranges::equal(content, std::span(image_->bytes()).subspan(1024, 1024)));

  // Status and the data's end in one descriptor.
  const GuestAddress into = driver_->allocate(1025);
  memory_.memory().store(into + 1024, kNoStatus);
  const Offered read{.data = into, .status = into + 1024};
  EXPECT_EQ(run(offer(read, {header(VIRTIO_BLK_T_IN, 2), DriverBuffer::writable(into, 600),
                             DriverBuffer::writable(into + 600, 425)})),
            VIRTIO_BLK_S_OK);
  EXPECT_EQ(data(read, 1024), content);
}

TEST_F(VirtioBlkTest, IndirectChainsWork) {
  const Offered read{.data = driver_->allocate(512), .status = status_byte()};
  const DriverBuffer chain[] = {header(VIRTIO_BLK_T_IN, 0), DriverBuffer::writable(read.data, 512),
                                DriverBuffer::writable(read.status, 1)};
  driver_->offer(chain, GuestDriver::Placement::kIndirect);
  EXPECT_EQ(run(read), VIRTIO_BLK_S_OK);
}

TEST_F(VirtioBlkTest, HeaderThatIsTooShortFailsTheRequestOnly) {
  const Offered broken{.data = {}, .status = status_byte()};
  const std::vector<std::byte> half(15);
  EXPECT_EQ(
      run(offer(broken, {driver_->allocate_with(half), DriverBuffer::writable(broken.status, 1)})),
      VIRTIO_BLK_S_IOERR);
  const Offered none{.data = {}, .status = status_byte()};
  EXPECT_EQ(run(offer(none, {DriverBuffer::writable(none.status, 1)})), VIRTIO_BLK_S_IOERR);
  EXPECT_FALSE(transport_.reset_requested());
  EXPECT_EQ(run(offer_read(0, 512)), VIRTIO_BLK_S_OK);
}

TEST_F(VirtioBlkTest, DiscardAndWriteZeroesClearTheirRange) {
  std::ranges::fill(image_->bytes(), std::byte{0xaa});
  EXPECT_EQ(run(offer_segment(VIRTIO_BLK_T_DISCARD, {.sector = 8, .sector_count = 4})),
            VIRTIO_BLK_S_OK);
  EXPECT_EQ(run(offer_segment(VIRTIO_BLK_T_WRITE_ZEROES, {.sector = 20, .sector_count = 2})),
            VIRTIO_BLK_S_OK);
  std::vector<std::byte> expected(kSectors * 512, std::byte{0xaa});
  std::fill_n(expected.begin() + 8 * 512, 4 * 512, std::byte{0});
  std::fill_n(expected.begin() + 20 * 512, 2 * 512, std::byte{0});
  EXPECT_EQ(image_->bytes(), expected);
}

TEST_F(VirtioBlkTest, BadSegmentsAreRefused) {
  const auto discard = [this](const BlkSegment& segment) {
    return run(offer_segment(VIRTIO_BLK_T_DISCARD, segment));
  };
  EXPECT_EQ(discard({.sector = 60, .sector_count = 5}), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(discard({.sector = ~uint64_t{0}, .sector_count = 2}), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(discard({.sector = 0, .sector_count = ~uint32_t{0}}), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(discard({.sector = 0, .sector_count = 1, .flags = 1}), VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(run(offer_segment(VIRTIO_BLK_T_WRITE_ZEROES, {.sector_count = 1, .flags = 2})),
            VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(run(offer_plain(VIRTIO_BLK_T_DISCARD)), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(image_->requests(), 0u);
}

TEST_F(VirtioBlkTest, DiscardThatWasNotAgreedOnIsUnsupported) {
  device_->stop([] {});
  loop_.run_until_idle();
  driver_ = std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = 8});
  start(uint64_t{1} << VIRTIO_BLK_F_FLUSH);
  EXPECT_EQ(run(offer_segment(VIRTIO_BLK_T_DISCARD, {.sector_count = 1})), VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(run(offer_segment(VIRTIO_BLK_T_WRITE_ZEROES, {.sector_count = 1})),
            VIRTIO_BLK_S_UNSUPP);
}

TEST_F(VirtioBlkTest, ConfigurationDescribesTheDisk) {
  const virtio_blk_config read = config();
  EXPECT_EQ(read.capacity, kSectors);
  EXPECT_EQ(read.seg_max, 6u);  // Of a queue of 8.
  EXPECT_EQ(read.blk_size, 512u);
  EXPECT_EQ(read.wce, 1u);
  EXPECT_EQ(read.max_discard_seg, 1u);
  EXPECT_EQ(read.write_zeroes_may_unmap, 1u);
}

TEST_F(VirtioBlkTest, ConfigurationBehindItsEndReadsAsZero) {
  std::array<uint8_t, 16> bytes;
  bytes.fill(0xff);
  device_->read_config(sizeof(virtio_blk_config) - 8, bytes);
  EXPECT_TRUE(std::all_of(bytes.begin() + 8, bytes.end(), [](uint8_t b) { return b == 0; }));
  bytes.fill(0xff);
  device_->read_config(~uint64_t{0}, bytes);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](uint8_t b) { return b == 0; }));
}

TEST_F(VirtioBlkTest, OnlyTheWriteCacheCanBeConfigured) {
  const uint8_t zero = 0;
  const std::array<uint8_t, 8> many = {};
  device_->write_config(0, many);
  device_->write_config(offsetof(virtio_blk_config, wce), {&zero, 1});
  device_->write_config(~uint64_t{0}, {&zero, 1});
  EXPECT_EQ(config().capacity, kSectors);
  EXPECT_EQ(config().wce, 0u);
  device_->stop([] {});
  loop_.run_until_idle();
  EXPECT_EQ(config().wce, 1u);  // A reset forgets it.
}

class VirtioBlkReadOnlyTest : public VirtioBlkTest {
 protected:
  void SetUp() override {
    make_and_start({.sectors = kSectors,
                    .read_only = true,
                    .completion = FakeBackend::Completion::kNextTurn,
                    .limits = {}});
  }
};

TEST_F(VirtioBlkReadOnlyTest, SaysSoAndFailsWrites) {
  EXPECT_TRUE(offers(VIRTIO_BLK_F_RO));
  EXPECT_FALSE(offers(VIRTIO_BLK_F_DISCARD));
  EXPECT_FALSE(offers(VIRTIO_BLK_F_WRITE_ZEROES));
  EXPECT_EQ(run(offer_write(0, std::vector<std::byte>(512))), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(run(offer_read(0, 512)), VIRTIO_BLK_S_OK);
}

TEST(VirtioBlkCreateTest, ImpossibleOptionsAreRefused) {
  loop::ManualLoop loop;
  FakeGuestMemory memory(4096);
  FakeBackend image({.sectors = 1});
  const auto create = [&](const std::string& serial, uint16_t queue_size) {
    return VirtioBlk::create({.queues = {{&loop.loop()}},
                              .memory = &memory.memory(),
                              .image = &image,
                              .serial = serial,
                              .queue_size = queue_size});
  };
  EXPECT_THAT(create("123456789012345678901", 256).error().message(), HasSubstr("at most 20"));
  EXPECT_FALSE(create("", 100));
  EXPECT_FALSE(create("", 2));
  EXPECT_FALSE(create("", 2048));
  EXPECT_TRUE(create("12345678901234567890", 256));
}

TEST(VirtioBlkLimitsTest, LargeBlocksShowInTheTopology) {
  loop::ManualLoop loop;
  FakeGuestMemory memory(4096);
  FakeBackend image({.limits = {.alignment_bytes = 4096, .physical_block_bytes = 4096}});
  auto device = VirtioBlk::create(
      {.queues = {{&loop.loop()}}, .memory = &memory.memory(), .image = &image, .queue_size = 256});
  ASSERT_TRUE(device);
  virtio_blk_config config;
  (*device)->read_config(0, {reinterpret_cast<uint8_t*>(&config), sizeof(config)});
  EXPECT_EQ(config.physical_block_exp, 3u);
  EXPECT_EQ(config.min_io_size, 8u);
  EXPECT_EQ(config.seg_max, 254u);
  EXPECT_EQ(config.max_discard_sectors, 0u);
}

}  // namespace
}  // namespace skiff::devices
