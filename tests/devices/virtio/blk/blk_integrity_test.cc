// SPDX-License-Identifier: GPL-2.0-or-later
// Random requests through the whole path, from the ring to a file and back, against a byte array.
// The seed is printed with a failure; SKIFF_TEST_SEED runs it again.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block/file_device.h"
#include "block/open_image.h"
#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/worker_pool.h"
#include "tests/devices/virtio/blk/blk_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kSectors = 4096;
constexpr uint32_t kRequestSectorsMax = 64;
constexpr size_t kInFlightMax = 16;

// An interrupt is a byte in an eventfd that the driver's thread can sleep on.
class WakingTransport final : public VirtioTransport {
 public:
  explicit WakingTransport(const loop::EventNotifier& interrupt) : interrupt_(interrupt) {}
  void interrupt_queue(QueueIndex) override { interrupt_.notify(); }
  void interrupt_config() override {}
  void need_reset() override { ADD_FAILURE() << "The device wants a reset"; }
  void set_doorbell_path(QueueIndex, DoorbellPath) override {}

 private:
  const loop::EventNotifier& interrupt_;
};

struct IntegrityCase {
  const char* name;
  loop::EventLoop::Backend backend;
  block::DirectIo direct;
};
void PrintTo(const IntegrityCase& integrity, std::ostream* out) { *out << integrity.name; }

class BlkIntegrityTest : public ::testing::TestWithParam<IntegrityCase> {
 protected:
  // One buffer of guest memory with header, data and status of one request at a time.
  struct Slot {
    GuestAddress header;
    GuestAddress data;
    GuestAddress status;
    uint16_t head = 0;
    uint64_t sector = 0;
    uint32_t sectors = 0;
    uint32_t type = 0;
    bool busy = false;
  };

  void SetUp() override {
    const char* given = std::getenv("SKIFF_TEST_SEED");
    seed_ = given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10))
                             : std::random_device{}();
    random_.seed(seed_);
    pool_ = *loop::WorkerPool::create({});
    auto io_thread =
        loop::IoThread::create({.name = "io0", .loop = {.backend = GetParam().backend}});
    if (!io_thread) GTEST_SKIP() << io_thread.error().message();
    io_thread_ = *std::move(io_thread);
    model_ = pattern(kSectors * 512, seed_);
    auto image = block::open_image(
        {.path = dir_.make_file("disk.img", model_), .direct = GetParam().direct}, *pool_);
    if (!image && GetParam().direct == block::DirectIo::kOn)
      GTEST_SKIP() << image.error().message();
    ASSERT_TRUE(image) << image.error().message();
    image_ = *std::move(image);
    auto device = VirtioBlk::create({.queues = {{&io_thread_->loop()}},
                                     .memory = &memory_.memory(),
                                     .image = image_.get(),
                                     .queue_size = 256});
    ASSERT_TRUE(device) << device.error().message();
    device_ = *std::move(device);
    device_->attach(transport_);
    for (Slot& slot : slots_) {
      slot.header = driver_.allocate(16);
      // Skewed, so that O_DIRECT needs its bounces now and then.
      slot.data = driver_.allocate(kRequestSectorsMax * 512 + 8, 512) + (&slot == slots_ ? 4 : 0);
      slot.status = driver_.allocate(1);
    }
    device_->start({.features = device_->features() | driver_.features() | kVirtioVersion1,
                    .queues = {driver_.layout()}});
  }
  void TearDown() override {
    if (!device_) return;
    stop();
    pool_.reset();  // A worker may still be on its way out of post().
    io_thread_.reset();
  }
  void stop() {
    auto stopped = *loop::EventNotifier::create();
    device_->stop([&stopped] { stopped.notify(); });
    wait(stopped);
  }
  static void wait(const loop::EventNotifier& notifier) {
    pollfd ready = {.fd = notifier.fd(), .events = POLLIN, .revents = 0};
    while (poll(&ready, 1, -1) < 0) {
    }
    notifier.consume();
  }

  bool free_of_others(uint64_t sector, uint32_t sectors) const {
    return std::ranges::none_of(slots_, [&](const Slot& other) {
      return other.busy && sector < other.sector + other.sectors && other.sector < sector + sectors;
    });
  }
  void offer_random(Slot& slot) {
    slot.sectors = 1 + static_cast<uint32_t>(random_() % kRequestSectorsMax);
    slot.sector = random_() % (kSectors - slot.sectors + 1);
    if (!free_of_others(slot.sector, slot.sectors)) return;
    constexpr uint32_t kTypes[] = {
        VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_IN,           VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_OUT,     VIRTIO_BLK_T_OUT,          VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_FLUSH};
    slot.type = kTypes[random_() % std::size(kTypes)];
    if (slot.type == VIRTIO_BLK_T_DISCARD && !image_->limits().discard) return;
    if (slot.type == VIRTIO_BLK_T_WRITE_ZEROES && !image_->limits().write_zeroes) return;
    offer(slot);
  }
  void offer(Slot& slot) {
    const uint32_t bytes = slot.sectors * 512;
    const bool segment =
        slot.type == VIRTIO_BLK_T_DISCARD || slot.type == VIRTIO_BLK_T_WRITE_ZEROES;
    memory_.memory().store(slot.header, BlkHeader{.type = slot.type, .sector = slot.sector});
    memory_.memory().store(slot.status, uint8_t{0xee});
    std::vector<DriverBuffer> chain = {DriverBuffer::readable(slot.header, 16)};
    if (segment) {
      const bool unmap = slot.type == VIRTIO_BLK_T_WRITE_ZEROES && random_() % 2 == 0;
      memory_.memory().store(slot.data, BlkSegment{.sector = slot.sector,
                                                   .sector_count = slot.sectors,
                                                   .flags = unmap ? 1u : 0u});
      chain.push_back(DriverBuffer::readable(slot.data, 16));
    } else if (slot.type == VIRTIO_BLK_T_OUT) {
      auto content = pattern(bytes, static_cast<uint32_t>(random_()));
      EXPECT_TRUE(memory_.memory().write(slot.data, content));
      std::ranges::copy(content, model_.begin() + static_cast<ptrdiff_t>(slot.sector * 512));
      // In two pieces, cut anywhere.
      const auto cut = 1 + static_cast<uint32_t>(random_() % (bytes - 1));
      chain.push_back(DriverBuffer::readable(slot.data, cut));
      chain.push_back(DriverBuffer::readable(slot.data + cut, bytes - cut));
    } else if (slot.type == VIRTIO_BLK_T_IN) {
      chain.push_back(DriverBuffer::writable(slot.data, bytes));
    }
    chain.push_back(DriverBuffer::writable(slot.status, 1));
    slot.head = driver_.offer(chain);
    slot.busy = true;
    if (driver_.kick_wanted()) device_->doorbell(0).notify();
  }
  void check(Slot& slot) {
    slot.busy = false;
    ASSERT_EQ(memory_.memory().load<uint8_t>(slot.status), uint8_t{VIRTIO_BLK_S_OK})
        << "type " << slot.type << " sector " << slot.sector << " sectors " << slot.sectors;
    const auto range = std::span(model_).subspan(slot.sector * 512, uint64_t{slot.sectors} * 512);
    if (slot.type == VIRTIO_BLK_T_IN) {
      std::vector<std::byte> got(range.size());
      ASSERT_TRUE(memory_.memory().read(slot.data, got));
      ASSERT_TRUE(std::ranges::equal(got, range)) << "sector " << slot.sector;
    } else if (slot.type == VIRTIO_BLK_T_DISCARD || slot.type == VIRTIO_BLK_T_WRITE_ZEROES) {
      // On a file a discarded range reads as zeroes, too.
      std::ranges::fill(range, std::byte{0});
    }
  }
  void collect() {
    for (const UsedElement& used : driver_.collect_all()) {
      const auto slot = std::ranges::find_if(
          slots_, [&](const Slot& its) { return its.busy && its.head == used.head; });
      ASSERT_NE(slot, std::end(slots_));
      ASSERT_NO_FATAL_FAILURE(check(*slot));
    }
  }
  bool any_busy() const {
    return std::ranges::any_of(slots_, [](const Slot& slot) { return slot.busy; });
  }

  TempDir dir_;
  uint32_t seed_ = 0;
  std::mt19937 random_;
  std::vector<std::byte> model_;
  FakeGuestMemory memory_{4 << 20};
  GuestDriver driver_{memory_, {.queue_size = 256, .features = kVirtioRingEventIdx}};
  const loop::EventNotifier interrupt_ = *loop::EventNotifier::create();
  WakingTransport transport_{interrupt_};
  Slot slots_[kInFlightMax];
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<loop::IoThread> io_thread_;
  std::unique_ptr<block::BlockBackend> image_;
  std::unique_ptr<VirtioBlk> device_;
};

TEST_P(BlkIntegrityTest, RandomRequestsMatchAByteArray) {
  SCOPED_TRACE("SKIFF_TEST_SEED=" + std::to_string(seed_));
  driver_.enable_interrupts();
  for (int round = 0; round < 400; ++round) {
    for (Slot& slot : slots_)
      if (!slot.busy && random_() % 4 != 0) offer_random(slot);
    if (any_busy() && !driver_.enable_interrupts()) wait(interrupt_);
    ASSERT_NO_FATAL_FAILURE(collect());
  }
  while (any_busy()) {
    if (!driver_.enable_interrupts()) wait(interrupt_);
    ASSERT_NO_FATAL_FAILURE(collect());
  }
  EXPECT_EQ(dir_.read_file("disk.img"), model_);
}

TEST_P(BlkIntegrityTest, StopWithRequestsInFlightLosesNoneOfThem) {
  SCOPED_TRACE("SKIFF_TEST_SEED=" + std::to_string(seed_));
  for (Slot& slot : slots_) offer_random(slot);
  stop();
  // Each either happened and says so, or was never taken.
  size_t answered = 0;
  for (const Slot& slot : slots_)
    answered += slot.busy && memory_.memory().load<uint8_t>(slot.status) == uint8_t{0};
  EXPECT_EQ(driver_.collect_all().size(), answered);
}

constexpr IntegrityCase kIntegrityCases[] = {
    {"io_uring", loop::EventLoop::Backend::kIoUring, block::DirectIo::kOff},
    {"io_uring_direct", loop::EventLoop::Backend::kIoUring, block::DirectIo::kOn},
    {"threads", loop::EventLoop::Backend::kEpoll, block::DirectIo::kOff}};

INSTANTIATE_TEST_SUITE_P(Engines, BlkIntegrityTest, ::testing::ValuesIn(kIntegrityCases),
                         [](const auto& its) { return std::string(its.param.name); });

}  // namespace
}  // namespace skiff::devices
