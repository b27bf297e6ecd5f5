// SPDX-License-Identifier: GPL-2.0-or-later
// The whole block layer against a model: ThrottledImage over FaultyImage over RawImage over
// FaultyEngine over a real file, with several channels, made-up time and made-up luck.
//
// SKIFF_SIM_SEED=N runs one seed again, SKIFF_SIM_SEEDS=N that many from a random one on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/file_device.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "block/filters/faulty_image.h"
#include "block/filters/throttled_image.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/sim/sector_model.h"
#include "tests/temp_dir.h"

namespace skiff::sim {
namespace {

using block::BlockOp;

constexpr uint64_t kSectorsMax = 512;
constexpr int kSteps = 150;
constexpr uint64_t kDefaultSeeds = 150;

class Simulation final : private block::DrainParty {
 public:
  Simulation(uint64_t seed, loop::WorkerPool& pool)
      : random_(seed), pool_(pool), in_memory_(seed % 32 != 0) {}
  ~Simulation() { channels_.clear(); }

  void run() {
    ASSERT_NO_FATAL_FAILURE(open());
    for (int step = 0; step < kSteps && !::testing::Test::HasFatalFailure(); ++step) act();
    finish();
    check_file();
  }

 private:
  struct Request {
    block::BlockRequest io;
    std::vector<std::byte> bytes;
    std::vector<iovec> iov;
    Simulation* self = nullptr;
    uint64_t first = 0;
    uint64_t count = 0;
    Stamp stamp = kZeroes;
    std::optional<SectorModel::ReadId> read;
    bool ended = false;
  };

  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(1, 100) <= percent; }

  void open() {
    // Overlapping requests mix within a sector when transfers are cut at any byte.
    overlaps_ = chance(50);
    const std::array<uint32_t, 3> alignments = {1, 512, 4096};
    alignment_ = alignments[pick(0, 2)];
    make_file();
    auto file = block::FileDevice::open({.path = path_, .alignment_bytes_min = alignment_});
    ASSERT_TRUE(file) << file.error().message();
    auto plan = std::make_unique<block::FaultPlan>();
    auto raw = std::make_unique<block::RawImage>(*std::move(file), block::IoEngineKind::kSync,
                                                 pool_, plan.get());
    raw_ = raw.get();
    if (chance(20)) raw_->note_cannot(block::IoOp::kWriteZeroes);
    if (chance(20)) raw_->note_cannot(block::IoOp::kDiscard);
    auto faulty = std::make_unique<block::FaultyImage>(std::move(plan), std::move(raw));
    block::ThrottleLimits limits;
    if (chance(50)) limits.requests.total = pick(50, 5000);
    if (chance(50)) limits.bytes.write = pick(100'000, 10'000'000);
    image_ = std::make_unique<block::ThrottledImage>(limits, std::move(faulty));
    for (uint64_t i = pick(1, 3); i > 0; --i) channels_.push_back(*image_->open_channel(loop_));
    point_.join(*this, loop_, "simulation");
  }

  // Mostly without a disk's flushes, which take their time.
  void make_file() {
    path_ = dir_.make_sparse("disk.img", kSectorsMax * kSectorBytes);
    if (!in_memory_) return;
    memory_.reset(memfd_create("disk", MFD_CLOEXEC));
    ASSERT_TRUE(memory_);
    ASSERT_EQ(ftruncate(memory_.get(), kSectorsMax * kSectorBytes), 0);
    path_ = "/proc/self/fd/" + std::to_string(memory_.get());
  }

  std::vector<std::byte> file_bytes() {
    const loop::UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<std::byte> bytes(static_cast<size_t>(lseek(fd.get(), 0, SEEK_END)));
    EXPECT_EQ(pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

  void act() {
    const uint64_t dice = pick(1, 100);
    if (dice <= 70) return submit_batch();
    if (dice <= 85) return loop_.advance_ns(static_cast<int64_t>(pick(1, 20'000'000)));
    if (dice <= 92) return change_faults();
    if (dice <= 96) return ask_status();
    resize();
  }

  void change_faults() {
    std::string rules = "seed=" + std::to_string(pick(1, 1'000'000)) + ";";
    const auto add = [&](const char* rule) {
      if (chance(40)) rules += std::string(rule) + ";";
    };
    add("op=write,p=0.2,torn=random");
    add("op=write,at=64K+16K,error=ENOSPC,p=0.5");
    add("op=read,p=0.2,error=EIO");
    add("op=flush,p=0.3,error=EIO");
    add("op=write-zeroes,p=0.3,torn=1");
    add("op=discard,p=0.3,error=EIO");
    add("p=0.3,delay=3ms");
    add("io=eintr,p=0.3");
    add("io=eagain,p=0.3");
    if (!overlaps_) add("io=short,p=0.4");
    if (chance(30)) rules.clear();
    ASSERT_TRUE(image_->set_faults(*block::FaultRules::parse(rules))) << rules;
  }

  void submit_batch() {
    std::vector<block::BlockRequest*> batch;
    for (uint64_t left = pick(1, 6); left > 0; --left)
      if (Request* request = make_request()) batch.push_back(&request->io);
    if (!batch.empty()) channels_[pick(0, channels_.size() - 1)]->submit(batch);
    if (chance(70)) loop_.run_until_idle();
    reap();
  }

  // Nothing when it would overlap what is in flight, where that is not wanted.
  Request* make_request() {
    constexpr std::array kOps = {BlockOp::kRead,  BlockOp::kRead,    BlockOp::kRead,
                                 BlockOp::kWrite, BlockOp::kWrite,   BlockOp::kWrite,
                                 BlockOp::kFlush, BlockOp::kDiscard, BlockOp::kWriteZeroes};
    const BlockOp op = kOps[pick(0, kOps.size() - 1)];
    const uint64_t count = op == BlockOp::kFlush ? 0 : std::min(model_.size(), pick(1, 40));
    const uint64_t first = op == BlockOp::kFlush ? 0 : pick(0, model_.size() - count);
    if (!overlaps_ && model_.is_busy(first, count)) return nullptr;
    Request& request = requests_.emplace_back();
    request.self = this;
    request.first = first;
    request.count = count;
    request.io.op = op;
    request.io.offset_bytes = first * kSectorBytes;
    request.io.length_bytes = count * kSectorBytes;
    request.io.fua = chance(20);
    request.io.may_unmap = chance(50);
    request.io.owner = &request;
    request.io.done = [](block::BlockRequest& io, int32_t result) {
      auto& ended = *static_cast<Request*>(io.owner);
      ended.self->on_done(ended, result);
    };
    if (op == BlockOp::kRead || op == BlockOp::kWrite) add_buffers(request);
    if (op == BlockOp::kRead) request.read = model_.read_begins(first, count);
    if (changes(op)) model_.write_begins(first, count, request.stamp);
    ++in_flight_;
    return &request;
  }

  void add_buffers(Request& request) {
    request.bytes.resize(request.count * kSectorBytes);
    if (request.io.op == BlockOp::kWrite) {
      request.stamp = next_stamp_++;
      for (uint64_t i = 0; i < request.count; ++i)
        fill_sector(std::span(request.bytes).subspan(i * kSectorBytes, kSectorBytes), request.stamp,
                    request.first + i);
    }
    // Segments of any size.
    for (size_t at = 0; at < request.bytes.size();) {
      const size_t length = std::min<size_t>(request.bytes.size() - at, pick(1, 9000));
      request.iov.push_back({request.bytes.data() + at, length});
      at += length;
    }
    request.io.iov = request.iov;
  }

  static bool changes(BlockOp op) {
    return op == BlockOp::kWrite || op == BlockOp::kDiscard || op == BlockOp::kWriteZeroes;
  }

  void on_done(Request& request, int32_t result) {
    ASSERT_FALSE(request.ended);
    request.ended = true;
    --in_flight_;
    EXPECT_TRUE(result == 0 || result == -EIO || result == -ENOSPC) << result;
    const BlockOp op = request.io.op;
    if (op == BlockOp::kRead) {
      const auto bytes =
          result == 0 ? std::span<const std::byte>(request.bytes) : std::span<const std::byte>();
      const uint64_t wrong = model_.read_ends(*request.read, bytes);
      EXPECT_EQ(wrong, model_.size()) << "sector " << wrong << " holds what it never may";
    }
    // A discarded sector may hold what it likes, so also what it held.
    if (changes(op))
      model_.write_ends(request.first, request.count, request.stamp,
                        result == 0 && op != BlockOp::kDiscard);
    if (ticket_ && in_flight_ == 0) std::exchange(ticket_, std::nullopt)->acknowledge();
  }

  void reap() {
    std::erase_if(requests_, [](const Request& request) { return request.ended; });
  }

  // By way of a worker, so time has to pass outside; nothing here depends on how much.
  void ask_status() {
    finish();
    block::BlockRequest status;
    const uint64_t count = std::min(model_.size(), pick(1, 100));
    const uint64_t first = pick(0, model_.size() - count);
    status.op = BlockOp::kStatus;
    status.offset_bytes = first * kSectorBytes;
    status.length_bytes = count * kSectorBytes;
    std::optional<int32_t> result;
    status.owner = &result;
    status.done = [](block::BlockRequest& io, int32_t outcome) {
      *static_cast<std::optional<int32_t>*>(io.owner) = outcome;
    };
    block::BlockRequest* one = &status;
    channels_[0]->submit({&one, 1});
    channels_[0]->hurry();
    while (!result) loop_.loop().run_once(loop::EventLoop::Wait::kUntilEvent);
    ASSERT_EQ(*result, 0);
    ASSERT_GE(status.status.length_bytes, kSectorBytes);
    ASSERT_LE(status.status.length_bytes, status.length_bytes);
    if (!status.status.reads_as_zeroes) return;
    const auto file = file_bytes();
    const auto range = std::span(file).subspan(status.offset_bytes, status.status.length_bytes);
    EXPECT_TRUE(std::ranges::all_of(range, [](std::byte byte) { return byte == std::byte{0}; }));
  }

  void resize() {
    bool drained = false;
    const auto drain = point_.begin([&] { drained = true; });
    loop_.run_until_idle();
    for (int turn = 0; !drained && turn < 1000; ++turn) loop_.advance_ns(1'000'000);
    ASSERT_TRUE(drained) << "a drain does not end";
    ASSERT_EQ(in_flight_, 0u);
    const uint64_t sectors = 8 * pick(1, kSectorsMax / 8);
    ASSERT_TRUE(image_->resize(sectors * kSectorBytes));
    model_.resize(sectors);
    point_.end(drain);
    loop_.run_until_idle();
  }

  // DrainParty: the simulation itself submits nothing while it waits.
  void quiesce(const block::DrainTicket& ticket) override {
    if (in_flight_ == 0) return ticket.acknowledge();
    ticket_ = ticket;
    for (const auto& channel : channels_) channel->hurry();
  }
  void resume() override { ticket_.reset(); }

  void finish() {
    // Rates and delays are bounded: so is the time until all is done.
    for (int turn = 0; in_flight_ > 0 && turn < 100'000; ++turn) loop_.advance_ns(10'000'000);
    ASSERT_EQ(in_flight_, 0u) << "requests never ended";
    for (const auto& channel : channels_) ASSERT_EQ(channel->in_flight(), 0u);
    reap();
  }

  void check_file() {
    bool left = false;
    point_.leave(*this, [&] { left = true; });
    loop_.run_until_idle();
    EXPECT_TRUE(left);
    const auto file = file_bytes();
    ASSERT_EQ(file.size(), model_.size() * kSectorBytes);
    const auto read = model_.read_begins(0, model_.size());
    EXPECT_EQ(model_.read_ends(read, file), model_.size()) << "the file holds what it never may";
  }

  TempDir dir_;
  std::string path_;
  loop::UniqueFd memory_;
  std::mt19937_64 random_;
  loop::WorkerPool& pool_;
  const bool in_memory_;
  loop::ManualLoop loop_;
  block::DrainPoint point_{loop_, "simulation"};
  SectorModel model_{kSectorsMax};
  std::unique_ptr<block::BlockBackend> image_;
  block::RawImage* raw_ = nullptr;
  std::vector<std::unique_ptr<block::BlockChannel>> channels_;
  std::list<Request> requests_;
  std::optional<block::DrainTicket> ticket_;
  bool overlaps_ = false;
  uint32_t alignment_ = 1;
  uint32_t in_flight_ = 0;
  Stamp next_stamp_ = 1;
};

std::optional<uint64_t> environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

TEST(BlockSimTest, EveryReadFindsWhatItMayAndEveryRequestEnds) {
  loop::set_log_level(loop::LogLevel::kOff);
  auto pool = *loop::WorkerPool::create({});
  uint64_t first = 1;
  uint64_t count = kDefaultSeeds;
  if (const auto seeds = environment("SKIFF_SIM_SEEDS")) {
    first = std::random_device{}();
    count = *seeds;
  }
  if (const auto seed = environment("SKIFF_SIM_SEED")) {
    first = *seed;
    count = 1;
  }
  for (uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("run it again with SKIFF_SIM_SEED=" + std::to_string(seed));
    Simulation(seed, *pool).run();
    if (::testing::Test::HasFailure()) break;
  }
  loop::set_log_level(loop::LogLevel::kWarn);
}

}  // namespace
}  // namespace skiff::sim
