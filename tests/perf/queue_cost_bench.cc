// SPDX-License-Identifier: GPL-2.0-or-later
// What measuring its own times costs a virtio-blk queue.
//
//   queue_cost_bench [ROUNDS]
//
// One thread is guest and home: 4 KiB reads through ring, queue and channel, kicks served inside
// the call, with `timed` on and off in interleaved rounds, at depth 1 and 32; once of the null
// device that ends them at once, once of a file in memory that is copied from. CPU time of the
// thread per request.
#include <linux/virtio_blk.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/open_image.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "vmm/bench/statistics.h"

namespace skiff::perf {
namespace {

using devices::DriverBuffer;
using devices::GuestAddress;
using loop::EventLoop;

constexpr uint32_t kBytes = 4096;
constexpr uint64_t kImageBytes = uint64_t{16} << 20;
constexpr uint64_t kRequestsPerRound = 20'000;

int64_t cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class Path {
 public:
  Path(EventLoop& loop, block::BlockBackend& image, bool timed) : loop_(loop) {
    device_ = *devices::VirtioBlk::create({.queues = {{&loop, devices::SubmitMode::kVcpu}},
                                           .memory = &memory_.memory(),
                                           .image = &image,
                                           .queue_size = 128,
                                           .timed = timed});
    device_->attach(transport_);
    for (size_t i = 0; i < chains_.size(); ++i) {
      const GuestAddress header = driver_.allocate(16);
      memory_.memory().store(header, uint32_t{VIRTIO_BLK_T_IN});
      memory_.memory().store(header + 8, uint64_t{i} * 8 * 37);
      chains_[i] = {DriverBuffer::readable(header, 16),
                    DriverBuffer::writable(driver_.allocate(kBytes, 4096), kBytes),
                    DriverBuffer::writable(driver_.allocate(1), 1)};
    }
    device_->start(
        {.features = device_->features() | driver_.features(), .queues = {driver_.layout()}});
    turn();
  }
  ~Path() {
    bool stopped = false;
    device_->stop([&] { stopped = true; });
    while (!stopped) turn();
  }

  double ns_per_request(size_t depth) {
    const int64_t before_ns = cpu_ns();
    uint64_t offered = 0;
    for (uint64_t done = 0; done < kRequestsPerRound;) {
      bool added = false;
      for (; offered < kRequestsPerRound && offered - done < depth; ++offered)
        added |= driver_.add(chains_[offered % chains_.size()]).has_value();
      driver_.enable_interrupts();
      if (added && driver_.publish()) device_->kick(0);
      loop_.run_once(EventLoop::Wait::kNo);
      while (driver_.collect()) ++done;
    }
    return static_cast<double>(cpu_ns() - before_ns) / kRequestsPerRound;
  }

 private:
  void turn() {
    while (loop_.run_once(EventLoop::Wait::kNo)) {
    }
  }

  EventLoop& loop_;
  devices::FakeGuestMemory memory_{1 << 20};
  devices::FakeTransport transport_;
  devices::GuestDriver driver_{memory_,
                               {.queue_size = 128, .features = devices::kVirtioRingEventIdx}};
  std::array<std::array<DriverBuffer, 3>, 32> chains_;
  std::unique_ptr<devices::VirtioBlk> device_;
};

void compare(const char* name, const std::string& path, loop::WorkerPool& pool, int rounds) {
  auto loop = EventLoop::create(
      {.backend = EventLoop::Backend::kIoUring, .task_work = EventLoop::TaskWork::kInterrupt});
  if (!loop) {
    std::printf("%s\n", loop.error().message().c_str());
    return;
  }
  block::ImageOptions options;
  options.path = path;
  options.format = block::ImageFormat::kRaw;
  options.engine = block::IoEngineKind::kSync;
  const auto image = *block::open_image(options, pool);
  Path with(**loop, *image, true);
  Path without(**loop, *image, false);
  for (const size_t depth : {size_t{1}, size_t{32}}) {
    std::vector<double> timed;
    std::vector<double> untimed;
    for (int round = 0; round < rounds; ++round) {
      timed.push_back(with.ns_per_request(depth));
      untimed.push_back(without.ns_per_request(depth));
    }
    const vmm::Interval ratio = vmm::ratio_interval(timed, untimed);
    std::printf("%-6s depth %2zu: %7.1f ns timed, %7.1f ns not, ratio %.3f (%.3f to %.3f)\n", name,
                depth, vmm::median_of(timed), vmm::median_of(untimed), ratio.middle, ratio.low,
                ratio.high);
  }
}

}  // namespace
}  // namespace skiff::perf

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 31;
  const auto pool = *skiff::loop::WorkerPool::create({});
  const skiff::loop::UniqueFd file(memfd_create("disk", MFD_CLOEXEC));
  if (!file || ftruncate(file.get(), skiff::perf::kImageBytes) != 0) return 1;
  skiff::perf::compare("null", "null:size=16M", *pool, rounds);
  skiff::perf::compare("memory", "/proc/self/fd/" + std::to_string(file.get()), *pool, rounds);
  return 0;
}
