// SPDX-License-Identifier: GPL-2.0-or-later
// A write that must be on stable storage before the next thing happens: three ways on one ring.
//
//   order_bench DIRECTORY [ROUNDS]
//
// chained: the fsync is submitted when the write has ended. linked: both at once, IOSQE_IO_LINK.
// dsync: one write with RWF_DSYNC. 4 KiB overwrites of a preallocated file, O_DIRECT and buffered;
// rounds are interleaved.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "block/aligned_buffer.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "vmm/bench/statistics.h"

namespace {

using skiff::loop::EventLoop;
using skiff::loop::RingOperation;

constexpr size_t kBytes = 4096;
constexpr uint64_t kFileBytes = uint64_t{64} << 20;
constexpr uint64_t kChainsPerRound = 400;

enum class Way : uint8_t { kChained, kLinked, kDsync };
constexpr std::array kWays = {Way::kChained, Way::kLinked, Way::kDsync};

class Bench;

struct Lane {
  struct Write : RingOperation {
    Lane* lane = nullptr;
  } write;
  struct Sync : RingOperation {
    Lane* lane = nullptr;
  } sync;
  Bench* bench = nullptr;
  int64_t start_ns = 0;
};

class Bench {
 public:
  Bench(EventLoop& loop, int fd, Way way, size_t depth)
      : loop_(loop), fd_(fd), way_(way), memory_(kBytes, 4096), lanes_(depth) {
    std::ranges::fill(memory_.bytes(), std::byte{1});
    for (Lane& lane : lanes_) {
      lane.bench = this;
      lane.write.lane = &lane;
      lane.sync.lane = &lane;
      lane.write.done = [](RingOperation& op, int32_t result, uint32_t) {
        Lane& its = *static_cast<Lane::Write&>(op).lane;
        its.bench->written(its, result);
      };
      lane.sync.done = [](RingOperation& op, int32_t result, uint32_t) {
        Lane& its = *static_cast<Lane::Sync&>(op).lane;
        its.bench->ended(its, result);
      };
    }
  }

  // Median latency in us, chains per second, system calls per chain.
  std::array<double, 3> run() {
    const skiff::loop::MonotonicClock clock;
    const uint64_t enters = loop_.counters().enters;
    const int64_t start_ns = clock.now_ns();
    left_ = kChainsPerRound;
    for (Lane& lane : lanes_) start(lane);
    while (done_ < kChainsPerRound) loop_.run_once(EventLoop::Wait::kUntilEvent);
    const auto took_ns = static_cast<double>(clock.now_ns() - start_ns);
    std::ranges::sort(latencies_);
    const auto calls = static_cast<double>(loop_.counters().enters - enters);
    return {static_cast<double>(latencies_[latencies_.size() / 2]) / 1000,
            kChainsPerRound * 1e9 / took_ns, calls / kChainsPerRound};
  }
  bool failed() const { return failed_; }

 private:
  void start(Lane& lane) {
    if (left_ == 0) return;
    --left_;
    lane.start_ns = loop_.now_ns();
    const uint64_t offset = (next_++ * 7919 * kBytes) % kFileBytes;
    io_uring_sqe& sqe = *loop_.next_sqe(lane.write);
    sqe.opcode = IORING_OP_WRITE;
    sqe.fd = fd_;
    sqe.addr = reinterpret_cast<uint64_t>(memory_.data());
    sqe.len = kBytes;
    sqe.off = offset;
    if (way_ == Way::kDsync) sqe.rw_flags = RWF_DSYNC;
    if (way_ == Way::kLinked) {
      sqe.flags |= IOSQE_IO_LINK;
      submit_sync(lane);
    }
  }
  void submit_sync(Lane& lane) {
    io_uring_sqe& sqe = *loop_.next_sqe(lane.sync);
    sqe.opcode = IORING_OP_FSYNC;
    sqe.fd = fd_;
    sqe.fsync_flags = IORING_FSYNC_DATASYNC;
  }
  void written(Lane& lane, int32_t result) {
    if (result != static_cast<int32_t>(kBytes)) failed_ = true;
    if (way_ == Way::kDsync) return ended(lane, 0);
    if (way_ == Way::kChained) submit_sync(lane);
  }
  void ended(Lane& lane, int32_t result) {
    if (result != 0) failed_ = true;
    latencies_.push_back(loop_.now_ns() - lane.start_ns);
    ++done_;
    start(lane);
  }

  EventLoop& loop_;
  const int fd_;
  const Way way_;
  const skiff::block::AlignedBuffer memory_;
  std::vector<Lane> lanes_;
  std::vector<int64_t> latencies_;
  uint64_t left_ = 0;
  uint64_t done_ = 0;
  uint64_t next_ = 0;
  bool failed_ = false;
};

const char* name_of(Way way) {
  if (way == Way::kChained) return "chained";
  return way == Way::kLinked ? "linked" : "dsync";
}

bool compare(EventLoop& loop, int fd, const char* what, size_t depth, size_t rounds) {
  std::array<std::array<std::vector<double>, 3>, 3> all;
  bool good = true;
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t way = 0; way < kWays.size(); ++way) {
      Bench bench(loop, fd, kWays[way], depth);
      const auto measured = bench.run();
      good = good && !bench.failed();
      for (size_t i = 0; i < measured.size(); ++i) all[way][i].push_back(measured[i]);
    }
  }
  for (size_t way = 0; way < kWays.size(); ++way) {
    std::printf("%-9s depth %2zu  %-8s p50 %8.1f us   %8.0f/s   %.2f system calls each\n", what,
                depth, name_of(kWays[way]), skiff::vmm::median_of(all[way][0]),
                skiff::vmm::median_of(all[way][1]), skiff::vmm::median_of(all[way][2]));
  }
  return good;
}

int run(const std::string& directory, size_t rounds) {
  const std::string path = directory + "/order-bench-" + std::to_string(getpid());
  const skiff::loop::UniqueFd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const std::vector<char> content(size_t{1} << 20, 1);
  for (uint64_t at = 0; at < kFileBytes; at += content.size()) {
    if (pwrite(file.get(), content.data(), content.size(), static_cast<off_t>(at)) < 0) return 2;
  }
  fsync(file.get());
  const skiff::loop::UniqueFd direct(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT));
  unlink(path.c_str());
  auto loop = EventLoop::create({.backend = EventLoop::Backend::kIoUring});
  if (!loop || !direct) {
    std::fprintf(stderr, "order_bench needs io_uring, and O_DIRECT in %s\n", directory.c_str());
    return 2;
  }
  bool good = true;
  for (const size_t depth : {size_t{1}, size_t{8}}) {
    good = compare(**loop, direct.get(), "O_DIRECT", depth, rounds) && good;
    good = compare(**loop, file.get(), "buffered", depth, rounds) && good;
  }
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: order_bench DIRECTORY [ROUNDS]\n");
    return 2;
  }
  return run(argv[1], static_cast<size_t>(std::max(argc > 2 ? std::atoi(argv[2]) : 7, 1)));
}
