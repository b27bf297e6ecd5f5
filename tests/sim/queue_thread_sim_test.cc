// SPDX-License-Identifier: GPL-2.0-or-later
// The schedules of queue_sim_test.cc with real threads: the loops turn by themselves while this
// thread is guest and operator, over a real file whose requests are delayed and fail at random.
// What matters besides the data is what the thread sanitizer says.
//
// SKIFF_THREAD_SCHEDULES=N runs that many. A seed repeats what is done, not who is faster.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "block/drain.h"
#include "block/error_policy.h"
#include "block/filters/fault_rules.h"
#include "block/open_image.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {
namespace {

using devices::DoorbellPath;
using devices::GuestDriver;
using devices::QueueHome;
using devices::QueueIndex;
using devices::SubmitMode;

constexpr size_t kQueues = 3;
constexpr size_t kThreads = 3;
constexpr int kSteps = 60;
constexpr uint64_t kDefaultSchedules = 400;
constexpr auto kPatience = std::chrono::seconds(60);

class ThreadSchedules {
 public:
  ThreadSchedules() {
    for (size_t i = 0; i < kThreads; ++i)
      threads_.push_back(
          *loop::IoThread::create({.name = "io" + std::to_string(i), .loop = loop_options(i)}));
    file_.reset(memfd_create("disk", MFD_CLOEXEC));
    constexpr auto kBytes = static_cast<off_t>(kQueues * QueueSlots::kSlots * 512);
    EXPECT_EQ(ftruncate(file_.get(), kBytes), 0);
    block::ImageOptions options;
    options.path = "/proc/self/fd/" + std::to_string(file_.get());
    options.format = block::ImageFormat::kRaw;
    options.faults = *block::FaultRules::parse("seed=1;p=0.2,delay=50us;op=write,p=0.1,error=EIO");
    image_ = *block::open_image(options, *pool_);
    device_ = *devices::VirtioBlk::create(
        {.queues = std::vector<QueueHome>(kQueues, {&threads_[0]->loop(), SubmitMode::kIoThread}),
         .memory = &memory_.memory(),
         .image = image_.get(),
         .queue_size = QueueSlots::kQueueSize,
         .errors = {.read = block::ErrorPolicy::kReport, .write = block::ErrorPolicy::kStop}});
    device_->attach(transport_);
    for (size_t i = 0; i < kQueues; ++i) {
      queues_.emplace_back(memory_.memory(), devices::GuestAddress{i * QueueSlots::kArenaBytes},
                           i * QueueSlots::kSlots);
      point_.join(device_->drain_party(static_cast<QueueIndex>(i)), main_, std::to_string(i));
    }
  }
  ~ThreadSchedules() {
    for (size_t i = 0; i < kQueues; ++i)
      point_.leave(device_->drain_party(static_cast<QueueIndex>(i)), [] {});
    main_.run_until_idle();
    device_.reset();
    image_.reset();
    pool_.reset();
  }

  void run(uint64_t seed) {
    random_.seed(seed);
    ring_features_ = chance(50) ? devices::kVirtioRingEventIdx : 0;
    start();
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      act();
      main_.run_until_idle();
      collect();
    }
    if (!::testing::Test::HasFailure()) finish();
  }

  uint64_t answered() const {
    uint64_t sum = 0;
    for (const QueueSlots& queue : queues_) sum += queue.answered();
    return sum;
  }
  uint64_t moved() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < kQueues; ++i)
      sum += device_->queue_stats(static_cast<QueueIndex>(i)).moves;
    return sum;
  }

 private:
  // The last of them is a vCPU's, as far as its ring goes.
  static loop::EventLoop::Options loop_options(size_t thread) {
    if (thread + 1 < kThreads) return {};
    return {.task_work = loop::EventLoop::TaskWork::kInterrupt};
  }
  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(1, 100) <= percent; }
  static void expect_right(const std::optional<std::string>& wrong) {
    EXPECT_FALSE(wrong) << *wrong;
  }

  void act() {
    const auto queue = static_cast<QueueIndex>(pick(0, kQueues - 1));
    const uint64_t dice = pick(1, 100);
    if (dice <= 60) return offer(queue);
    if (dice <= 70) return std::this_thread::yield();
    if (dice <= 80) return move(queue);
    if (dice <= 88) return drain();
    if (dice <= 92) return device_->retry_failed();
    if (dice <= 98) return reset_queue(queue);
    stop();
    start();
  }

  void offer(QueueIndex queue) {
    if (!in_use_[queue] || !queues_[queue].offer(chance(50), GuestDriver::Placement::kDirect))
      return;
    if (queues_[queue].driver().kick_wanted()) kick(queue);
  }
  void kick(QueueIndex queue) {
    if (transport_.doorbell_path(queue) == DoorbellPath::kKernel)
      return device_->doorbell(queue).notify();
    if (chance(50)) return device_->kick(queue);
    // The vCPU that rings is the home, or was when it did.
    device_->queue_home(queue).loop->post([this, queue] { device_->kick(queue); });
  }
  void move(QueueIndex queue) {
    constexpr SubmitMode kModes[] = {SubmitMode::kIoThread, SubmitMode::kVcpu, SubmitMode::kPoll};
    moving_.fetch_add(1);
    device_->move_queue(queue, {&threads_[pick(0, kThreads - 1)]->loop(), kModes[pick(0, 2)]},
                        [this] { moving_.fetch_sub(1); });
  }
  void drain() {
    if (!drain_) {
      drain_ = point_.begin([] {});
      return;
    }
    point_.end(*drain_);
    drain_.reset();
  }
  void reset_queue(QueueIndex queue) {
    std::atomic<bool> done{false};
    device_->reset_queue(queue, [&done] { done = true; });
    wait_for([&] { return done.load(); });
    expect_right(queues_[queue].settle());
    in_use_[queue] = chance(70);
    if (in_use_[queue]) device_->start_queue(queue, queues_[queue].restart(ring_features_));
  }
  void start() {
    devices::VirtioStart start{.features = ring_features_ | devices::kVirtioVersion1, .queues = {}};
    for (QueueSlots& queue : queues_) start.queues.push_back(queue.restart(ring_features_));
    in_use_.fill(true);
    device_->start(start);
  }
  void stop() {
    std::atomic<bool> stopped{false};
    device_->stop([&stopped] { stopped = true; });
    wait_for([&] { return stopped.load(); });
    for (QueueSlots& queue : queues_) expect_right(queue.settle());
  }

  void collect() {
    for (size_t i = 0; i < kQueues; ++i)
      if (in_use_[i]) expect_right(queues_[i].collect());
  }
  template <typename Condition>
  void wait_for(const Condition& condition) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "it does not come to its end";
      main_.run_until_idle();
      std::this_thread::yield();
    }
  }
  // With the kicks there were, everything has to be answered.
  void finish() {
    if (drain_) drain();
    wait_for([this] {
      device_->retry_failed();
      collect();
      size_t busy = 0;
      for (size_t i = 0; i < kQueues; ++i)
        if (in_use_[i]) busy += queues_[i].busy();
      return busy == 0 && moving_.load() == 0;
    });
    stop();
    EXPECT_FALSE(transport_.reset_requested());
    std::vector<std::byte> disk(kQueues * QueueSlots::kSlots * QueueSlots::kSectorBytes);
    ASSERT_EQ(pread(file_.get(), disk.data(), disk.size(), 0), static_cast<ssize_t>(disk.size()));
    for (const QueueSlots& queue : queues_) expect_right(queue.check(disk));
  }

  std::mt19937_64 random_;
  std::unique_ptr<loop::WorkerPool> pool_ = *loop::WorkerPool::create({});
  std::vector<std::unique_ptr<loop::IoThread>> threads_;
  loop::ManualLoop main_;
  loop::UniqueFd file_;
  devices::FakeGuestMemory memory_{kQueues * QueueSlots::kArenaBytes};
  devices::FakeTransport transport_;
  std::unique_ptr<block::BlockBackend> image_;
  block::DrainPoint point_{main_, "schedules"};
  std::vector<QueueSlots> queues_;
  std::unique_ptr<devices::VirtioBlk> device_;

  uint64_t ring_features_ = 0;
  std::array<bool, kQueues> in_use_{};
  std::optional<block::DrainPoint::DrainId> drain_;
  std::atomic<int> moving_{0};
};

TEST(QueueThreadSimTest, NoScheduleLosesARequestOrLeavesOneBehind) {
  loop::set_log_level(loop::LogLevel::kOff);
  const char* given = std::getenv("SKIFF_THREAD_SCHEDULES");
  const uint64_t first = given != nullptr ? std::random_device{}() : 1;
  const uint64_t count = given != nullptr ? std::strtoull(given, nullptr, 10) : kDefaultSchedules;
  {
    ThreadSchedules schedules;
    for (uint64_t seed = first; seed < first + count; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      schedules.run(seed);
      if (::testing::Test::HasFailure()) break;
    }
    EXPECT_GT(schedules.answered(), count);
    EXPECT_GT(schedules.moved(), count / 2);
  }
  loop::set_log_level(loop::LogLevel::kWarn);
}

}  // namespace
}  // namespace skiff::sim
