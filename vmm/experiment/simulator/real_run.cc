// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/real_run.h"

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/io_engine.h"
#include "block/open_image.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/experiment/random.h"
#include "vmm/experiment/simulator/on_loop.h"

namespace skiff::vmm {
namespace {

using loop::EventLoop;
using loop::Result;

constexpr uint32_t kSlots = 1024;

// One producer, one consumer. What travels is when a request was due.
class DueRing {
 public:
  bool push(int64_t due_ns) {
    const uint32_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == kSlots) return false;
    slots_[tail % kSlots] = due_ns;
    tail_.store(tail + 1, std::memory_order_seq_cst);
    return true;
  }
  bool is_empty() const { return head_.load() == tail_.load(); }
  bool pop(int64_t& due_ns) {
    const uint32_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_seq_cst)) return false;
    due_ns = slots_[head % kSlots];
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

 private:
  alignas(128) std::atomic<uint32_t> tail_{0};
  alignas(128) std::atomic<uint32_t> head_{0};
  alignas(128) std::array<int64_t, kSlots> slots_ = {};
};

struct Wire {
  loop::EventNotifier doorbell;
  loop::EventNotifier interrupt;
  DueRing out;
  DueRing back;
  alignas(128) std::atomic<bool> wants_doorbell{true};
};

// The IOThread's side.
class Server {
 public:
  Server(EventLoop& loop, Wire& wire, std::unique_ptr<block::BlockChannel> channel)
      : wire_(wire),
        channel_(std::move(channel)),
        slots_(kSlots),
        interrupt_bh_(loop, loop::Priority::kCompletion, [this] { interrupt(); }),
        watch_(loop, wire.doorbell, loop::Priority::kSubmission, [this] { serve(); }) {
    for (Slot& slot : slots_) {
      slot.server = this;
      slot.request.length_bytes = memory_.size();
      slot.request.iov = {&part_, 1};
      slot.request.owner = &slot;
      slot.request.done = &Server::on_done;
      idle_.push_back(&slot);
    }
  }
  // Nothing is under way, nor waits to be.
  bool is_idle() const { return channel_->in_flight() == 0 && wire_.out.is_empty(); }

 private:
  struct Slot {
    Server* server = nullptr;
    int64_t due_ns = 0;
    block::BlockRequest request;
  };

  void interrupt() {
    wire_.interrupt.notify();
    // What found no slot when its doorbell rang.
    if (!wire_.out.is_empty()) serve();
  }

  void serve() {
    int64_t due_ns = 0;
    do {
      while (!idle_.empty() && wire_.out.pop(due_ns)) {
        Slot* slot = idle_.back();
        idle_.pop_back();
        slot->due_ns = due_ns;
        batch_.push_back(&slot->request);
      }
      wire_.wants_doorbell.store(true, std::memory_order_seq_cst);
      // Closes the race with a generator that saw no wish for a doorbell just before.
    } while (!idle_.empty() && wire_.out.pop(due_ns) && keep(due_ns));
    if (!batch_.empty()) channel_->submit(batch_);
    batch_.clear();
  }

  bool keep(int64_t due_ns) {
    wire_.wants_doorbell.store(false, std::memory_order_relaxed);
    Slot* slot = idle_.back();
    idle_.pop_back();
    slot->due_ns = due_ns;
    batch_.push_back(&slot->request);
    return true;
  }

  static void on_done(block::BlockRequest& request, int32_t) {
    Slot& slot = *static_cast<Slot*>(request.owner);
    Server& server = *slot.server;
    server.wire_.back.push(slot.due_ns);
    server.idle_.push_back(&slot);
    server.interrupt_bh_.schedule();
  }

  Wire& wire_;
  const std::unique_ptr<block::BlockChannel> channel_;
  std::array<std::byte, 4096> memory_ = {};
  const iovec part_ = {memory_.data(), memory_.size()};
  std::vector<Slot> slots_;
  std::vector<Slot*> idle_;
  std::vector<block::BlockRequest*> batch_;
  loop::BottomHalf interrupt_bh_;
  loop::NotifierWatch watch_;
};

// The vCPU's side.
class Generator {
 public:
  Generator(EventLoop& loop, Wire& wire, double rate, uint64_t seed)
      : loop_(loop),
        wire_(wire),
        interval_ns_(1e9 / rate),
        random_(seed),
        timer_(loop, loop::Priority::kSubmission, [this] { start_due(); }),
        watch_(loop, wire.interrupt, loop::Priority::kCompletion, [this] { finish(); }) {}

  void start(int64_t begin_ns, int64_t end_ns) {
    begin_ns_ = begin_ns;
    end_ns_ = end_ns;
    next_ns_ = static_cast<double>(loop_.now_ns());
    start_due();
  }
  const loop::LatencyHistogram& latency() const { return latency_; }

 private:
  void start_due() {
    bool any = false;
    const auto is_due = [this] { return next_ns_ <= static_cast<double>(loop_.now_ns()); };
    const auto is_over = [this] { return next_ns_ >= static_cast<double>(end_ns_); };
    while (is_due() && !is_over()) {
      if (!wire_.out.push(static_cast<int64_t>(next_ns_))) break;  // Full: a little later.
      any = true;
      next_ns_ += random_.exponential(interval_ns_);
    }
    if (any && wire_.wants_doorbell.exchange(false)) wire_.doorbell.notify();
    if (!is_over()) timer_.arm_at(static_cast<int64_t>(next_ns_));
  }

  void finish() {
    int64_t due_ns = 0;
    const int64_t now_ns = loop_.now_ns();
    while (wire_.back.pop(due_ns))
      if (due_ns >= begin_ns_) latency_.record(now_ns - due_ns);
  }

  EventLoop& loop_;
  Wire& wire_;
  const double interval_ns_;
  Random random_;
  double next_ns_ = 0;
  int64_t begin_ns_ = 0;
  int64_t end_ns_ = 0;
  loop::LatencyHistogram latency_;
  loop::Timer timer_;
  loop::NotifierWatch watch_;
};

struct Pair {
  std::unique_ptr<loop::IoThread> server_thread;
  std::unique_ptr<loop::IoThread> generator_thread;
  std::unique_ptr<Wire> wire;
  std::optional<Server> server;
  std::optional<Generator> generator;
  int64_t cpu_ns = 0;
};

Result<std::unique_ptr<Pair>> make_pair(block::BlockBackend& image, const RealRunOptions& options,
                                        uint32_t index) {
  auto pair = std::make_unique<Pair>();
  const auto cpus = usable_cpus();
  if (!cpus) return cpus.error();
  // Dealt out as the model does it: the generators first.
  const std::array<std::pair<std::unique_ptr<loop::IoThread>*, uint32_t>, 2> places = {
      {{&pair->generator_thread, index}, {&pair->server_thread, options.pairs + index}}};
  for (const auto& [thread, place] : places) {
    auto made = loop::IoThread::create(
        {.name = "check" + std::to_string(index), .cpus = (*cpus)[place % cpus->size()]});
    if (!made) return made.error();
    *thread = *std::move(made);
  }
  auto doorbell = loop::EventNotifier::create();
  if (!doorbell) return doorbell.error();
  auto interrupt = loop::EventNotifier::create();
  if (!interrupt) return interrupt.error();
  pair->wire.reset(new Wire{*std::move(doorbell), *std::move(interrupt)});
  EventLoop& loop = pair->server_thread->loop();
  std::optional<loop::Error> error;
  run_on_loop(loop, [&] {
    auto channel = image.open_channel(loop);
    if (channel)
      pair->server.emplace(loop, *pair->wire, *std::move(channel));
    else
      error = channel.error();
  });
  if (error) return *error;
  EventLoop& own = pair->generator_thread->loop();
  run_on_loop(
      own, [&] { pair->generator.emplace(own, *pair->wire, options.rate, options.seed + index); });
  return pair;
}

void sleep_until(EventLoop& loop, int64_t time_ns) {
  loop::Timer timer(loop, loop::Priority::kService, [&] { loop.stop(); });
  timer.arm_at(time_ns);
  loop.run();
}

}  // namespace

Result<RealRunResult> run_real(const RealRunOptions& options) {
  auto here = EventLoop::create();
  if (!here) return here.error();
  auto pool = loop::WorkerPool::create({.name = "check-pool"});
  if (!pool) return pool.error();
  auto image =
      block::open_image({.path = "null:size=1G", .engine = block::IoEngineKind::kIoUring}, **pool);
  if (!image) return image.error();
  std::vector<std::unique_ptr<Pair>> pairs;
  Result<void> ready;
  for (uint32_t i = 0; i < options.pairs && ready; ++i) {
    auto pair = make_pair(**image, options, i);
    if (pair)
      pairs.push_back(*std::move(pair));
    else
      ready = pair.error();
  }
  const int64_t begin_ns = (*here)->now_ns() + options.duration_ns / 10;
  const int64_t end_ns = begin_ns + options.duration_ns;
  RealRunResult result;
  result.seconds = static_cast<double>(options.duration_ns) / 1e9;
  if (ready) {
    for (const auto& pair : pairs)
      run_on_loop(pair->generator_thread->loop(),
                  [&] { pair->generator->start(begin_ns, end_ns); });
    sleep_until(**here, begin_ns);
    for (const auto& pair : pairs)
      run_on_loop(pair->server_thread->loop(), [&] { pair->cpu_ns = -thread_cpu_ns(); });
    sleep_until(**here, end_ns);
    for (const auto& pair : pairs)
      run_on_loop(pair->server_thread->loop(), [&] { pair->cpu_ns += thread_cpu_ns(); });
    constexpr int64_t kLastOnesNs = 20'000'000;
    sleep_until(**here, end_ns + kLastOnesNs);
  }
  double cpu_ns = 0;
  for (const auto& pair : pairs) {
    run_on_loop(pair->generator_thread->loop(), [&] {
      result.latency.merge(pair->generator->latency());
      pair->generator.reset();
    });
    // What is still on its way comes to an end, as nobody starts anything any more.
    for (bool idle = false; pair->server && !idle;) {
      run_on_loop(pair->server_thread->loop(), [&] {
        idle = pair->server->is_idle();
        if (idle) pair->server.reset();
      });
    }
    cpu_ns += static_cast<double>(pair->cpu_ns);
  }
  // The pool goes before the loops that it serves.
  image->reset();
  pool->reset();
  if (!ready) return ready.error();
  result.completed = result.latency.count();
  if (result.completed != 0) result.home_cpu_ns = cpu_ns / static_cast<double>(result.completed);
  return result;
}

}  // namespace skiff::vmm
