// SPDX-License-Identifier: GPL-2.0-or-later
// What a vCPU's own loop costs and brings, on this host's /dev/kvm: medians of interleaved rounds.
//
//   vcpu_loop_bench FILE [ROUNDS]
//
// FILE is read in blocks of 4 KiB with O_DIRECT; it should have 1 MiB or more. Exits: the guest
// writes a port for ever in CPL 3. Reads: from submission to completion, one at a time, on the loop
// of a vCPU that spins, is halted or is paused, beside a thread that sleeps in its loop. Messages:
// from post() to the callback. Guard: how fast a guest counts with an operation in flight that does
// not end, against nothing in flight.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/bus.h"
#include "loop/check.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_layout.h"
#include "vmm/memory_slots.h"
#include "vmm/vcpu_thread.h"

namespace {

using skiff::loop::EventLoop;
using skiff::loop::RingOperation;
using skiff::vmm::VcpuMode;

using Code = std::vector<uint8_t>;
const Code kRingForEver = {0x66, 0xba, 0x00, 0x05, 0xee, 0xeb, 0xfd};  // mov dx, 0x500; out; jmp -3
const Code kCountForEver = {0xbb, 0,    0,    3,    0,                 // mov ebx, 0x30000
                            0x48, 0xff, 0x03, 0xeb, 0xfb};             // inc qword [rbx]; jmp -5
const Code kHaltForEver = {0xf4, 0xeb, 0xfd};
constexpr uint64_t kCounter = 0x30000;
constexpr int64_t kRoundNs = 20'000'000;
constexpr int kReadsPerRound = 300;
constexpr int kPostsPerRound = 300;

const skiff::loop::MonotonicClock kClock;

void wait_ns(int64_t ns) {
  const int64_t until_ns = kClock.now_ns() + ns;
  while (kClock.now_ns() < until_ns) {
  }
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 0 : values[values.size() / 2];
}

class CountingPort final : public skiff::devices::BusDevice {
 public:
  void bus_read(uint64_t, std::span<uint8_t>) override {}
  void bus_write(uint64_t, std::span<const uint8_t>) override {
    rings.store(rings.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  std::atomic<uint64_t> rings{0};
};

// A guest of one vCPU.
class Guest {
 public:
  Guest(EventLoop& main_loop, VcpuMode mode, const Code& code, bool with_loop)
      : main_loop_(main_loop) {
    system_ = std::make_unique<skiff::vmm::KvmSystem>(*skiff::vmm::KvmSystem::open());
    vm_ = *skiff::vmm::Vm::create(*system_);
    memory_ = *skiff::vmm::MemorySlots::create(
        *vm_, {.size_bytes = 2 * skiff::vmm::kMiB, .huge_pages = false});
    SKIFF_CHECK(vm_->add_interrupt_controllers());
    SKIFF_CHECK(skiff::vmm::write_payload_tables(memory_->memory()));
    SKIFF_CHECK(skiff::vmm::write_payload_code(memory_->memory(), code));
    SKIFF_CHECK(pio_.add(0x500, 1, port));
    skiff::vmm::VcpuThread::Options options;
    options.with_loop = with_loop;
    options.set_up = [this, mode](skiff::vmm::Vcpu& vcpu) -> skiff::loop::Result<void> {
      skiff::vmm::CpuidOptions cpuid;
      cpuid.topology = {.cpus = 1, .sockets = 1, .cores = 1, .threads = 1};
      SKIFF_RETURN_IF_ERROR(
          vcpu.set_cpuid(make_cpuid(system_->supported_cpuid(), cpuid, vcpu.apic_id())));
      return vcpu.start_at(skiff::vmm::payload_boot_state(mode));
    };
    vcpu_ = *skiff::vmm::VcpuThread::create({*vm_, pio_, mmio_, main_loop, {}}, std::move(options));
    SKIFF_CHECK(vcpu_->wait_ready());
  }
  void resume() { vcpu_->resume(); }
  void pause() {
    bool paused = false;
    vcpu_->pause([&paused] { paused = true; });
    while (!paused) main_loop_.run_once(EventLoop::Wait::kUntilEvent);
  }
  uint64_t counter() const {
    uint64_t value = 0;
    SKIFF_CHECK(memory_->memory().read({kCounter}, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  EventLoop& loop() { return *vcpu_->loop(); }
  const skiff::vmm::VcpuLoopCounters& counters() const { return vcpu_->loop_counters(); }

  CountingPort port;

 private:
  EventLoop& main_loop_;
  std::unique_ptr<skiff::vmm::KvmSystem> system_;
  std::unique_ptr<skiff::vmm::Vm> vm_;
  std::unique_ptr<skiff::vmm::MemorySlots> memory_;
  skiff::devices::PioBus pio_;
  skiff::devices::MmioBus mmio_;
  std::unique_ptr<skiff::vmm::VcpuThread> vcpu_;
};

// Reads one block after the other on a loop, from any thread.
class Reader : RingOperation {
 public:
  Reader(EventLoop& loop, int fd, uint64_t blocks) : loop_(loop), fd_(fd), blocks_(blocks) {
    done = [](RingOperation& self, int32_t result, uint32_t) {
      SKIFF_CHECK(result == 4096);
      static_cast<Reader&>(self).on_done();
    };
    buffer_ = std::aligned_alloc(4096, 4096);
  }
  ~Reader() { std::free(buffer_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Took so long that it may have been missed, or the host was busy with something else.
  static constexpr double kLateUs = 500;

  // us, the median.
  double run() {
    times_.clear();
    ended_ = false;
    loop_.post([this] { submit(); });
    while (!ended_) wait_ns(1000);
    for (const double us : times_) late_ += us > kLateUs ? 1 : 0;
    return median(times_);
  }
  uint64_t late() const { return late_; }

 private:
  void submit() {
    io_uring_sqe* sqe = loop_.next_sqe(*this);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd_;
    sqe->addr = reinterpret_cast<uint64_t>(buffer_);
    sqe->len = 4096;
    block_ = (block_ * 1664525 + 1013904223) % blocks_;
    sqe->off = block_ * 4096;
    start_ns_ = kClock.now_ns();
  }
  void on_done() {
    times_.push_back(static_cast<double>(kClock.now_ns() - start_ns_) / 1000);
    if (times_.size() < kReadsPerRound) return submit();
    ended_ = true;
  }

  EventLoop& loop_;
  int fd_;
  uint64_t blocks_;
  void* buffer_;
  uint64_t block_ = 1;
  int64_t start_ns_ = 0;
  uint64_t late_ = 0;
  std::vector<double> times_;
  std::atomic<bool> ended_{false};
};

// From post() to the callback in us, the median; with time to fall asleep in between.
double post_us(EventLoop& loop) {
  std::vector<double> times;
  for (int i = 0; i < kPostsPerRound; ++i) {
    std::atomic<int64_t> ran_ns{0};
    const int64_t start_ns = kClock.now_ns();
    loop.post([&ran_ns] { ran_ns = kClock.now_ns(); });
    while (ran_ns == 0) {
    }
    times.push_back(static_cast<double>(ran_ns - start_ns) / 1000);
    wait_ns(20'000);
  }
  return median(times);
}

double exits_us(Guest& guest) {
  guest.resume();
  const uint64_t before = guest.port.rings;
  const int64_t start_ns = kClock.now_ns();
  wait_ns(kRoundNs);
  const uint64_t rings = guest.port.rings - before;
  const int64_t took_ns = kClock.now_ns() - start_ns;
  guest.pause();
  return static_cast<double>(took_ns) / 1000 / static_cast<double>(rings);
}

// How often the guest counts in a microsecond.
double counts_per_us(Guest& guest) {
  const uint64_t before = guest.counter();
  const int64_t start_ns = kClock.now_ns();
  wait_ns(kRoundNs);
  const uint64_t counted = guest.counter() - before;
  return static_cast<double>(counted) * 1000 / static_cast<double>(kClock.now_ns() - start_ns);
}

class Bench {
 public:
  Bench(EventLoop& main_loop, const char* path)
      : file_(::open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)),
        without_(main_loop, VcpuMode::kLong64User, kRingForEver, false),
        with_(main_loop, VcpuMode::kLong64User, kRingForEver, true),
        spinning_(main_loop, VcpuMode::kLong64User, kCountForEver, true),
        halted_(main_loop, VcpuMode::kLong64, kHaltForEver, true),
        io_thread_(*skiff::loop::IoThread::create({.name = "io"})),
        polling_(
            *skiff::loop::IoThread::create({.name = "polling", .loop = {.poll_max_ns = 200'000}})) {
    SKIFF_CHECK(file_);
    const auto blocks = static_cast<uint64_t>(::lseek(file_.get(), 0, SEEK_END)) / 4096;
    const auto make = [&](EventLoop& loop) {
      return std::make_unique<Reader>(loop, file_.get(), blocks);
    };
    on_io_thread_ = make(io_thread_->loop());
    on_polling_ = make(polling_->loop());
    on_spinning_ = make(spinning_.loop());
    on_halted_ = make(halted_.loop());
  }

  void round() {
    note("exit, us: without a loop", exits_us(without_));
    note("exit, us: with a loop", exits_us(with_));
    note("exit, us: without again (A/A)", exits_us(without_));
    note("read, us: sleeping thread", on_io_thread_->run());
    note("read, us: polling thread", on_polling_->run());
    note("read, us: paused vCPU", on_halted_->run());
    note("post, us: sleeping thread", post_us(io_thread_->loop()));
    note("post, us: polling thread", post_us(polling_->loop()));
    note("post, us: paused vCPU", post_us(halted_.loop()));
    halted_.resume();
    note("read, us: halted vCPU", on_halted_->run());
    note("post, us: halted vCPU", post_us(halted_.loop()));
    halted_.pause();
    spinning_.resume();
    note("read, us: spinning vCPU", on_spinning_->run());
    note("post, us: spinning vCPU", post_us(spinning_.loop()));
    guard();
    spinning_.pause();
  }
  void print() const {
    for (const auto& [name, values] : values_)
      std::printf("%-36s %9.2f  (%.2f to %.2f, %zu rounds)\n", name.c_str(), median(values),
                  *std::ranges::min_element(values), *std::ranges::max_element(values),
                  values.size());
    const auto tell = [](const char* who, const Reader& reader, const Guest* guest) {
      std::printf("%-20s %llu reads above 500 us", who, number(reader.late()));
      if (guest != nullptr)
        std::printf("; %llu completions ended KVM_RUN, alarms found at most %llu more",
                    number(guest->counters().completions), number(guest->counters().missed));
      std::printf("\n");
    };
    tell("sleeping thread:", *on_io_thread_, nullptr);
    tell("spinning vCPU:", *on_spinning_, &spinning_);
    tell("halted vCPU:", *on_halted_, &halted_);
  }

 private:
  static unsigned long long number(uint64_t value) { return value; }
  void note(const std::string& name, double value) { values_[name].push_back(value); }

  // A read of an eventfd that nobody writes is in flight until it is cancelled.
  void guard() {
    note("guest counts/us: nothing in flight", counts_per_us(spinning_));
    struct Waiting : RingOperation {
      std::atomic<bool> ended{false};
      uint64_t count = 0;
    } waiting;
    waiting.done = [](RingOperation& self, int32_t, uint32_t) {
      static_cast<Waiting&>(self).ended = true;
    };
    const auto event = *skiff::loop::EventNotifier::create();
    spinning_.loop().post([&] {
      io_uring_sqe* sqe = spinning_.loop().next_sqe(waiting);
      sqe->opcode = IORING_OP_READ;
      sqe->fd = event.fd();
      sqe->addr = reinterpret_cast<uint64_t>(&waiting.count);
      sqe->len = sizeof(waiting.count);
    });
    const uint64_t alarms = spinning_.counters().alarms;
    const int64_t start_ns = kClock.now_ns();
    note("guest counts/us: guarded", counts_per_us(spinning_));
    note("guard, alarms/s", static_cast<double>(spinning_.counters().alarms - alarms) * 1e9 /
                                static_cast<double>(kClock.now_ns() - start_ns));
    event.notify();
    while (!waiting.ended) wait_ns(1000);
    note("guest counts/us: nothing again (A/A)", counts_per_us(spinning_));
  }

  skiff::loop::UniqueFd file_;
  Guest without_;
  Guest with_;
  Guest spinning_;
  Guest halted_;
  std::unique_ptr<skiff::loop::IoThread> io_thread_;
  std::unique_ptr<skiff::loop::IoThread> polling_;
  std::unique_ptr<Reader> on_io_thread_;
  std::unique_ptr<Reader> on_polling_;
  std::unique_ptr<Reader> on_spinning_;
  std::unique_ptr<Reader> on_halted_;
  std::map<std::string, std::vector<double>> values_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || !skiff::vmm::KvmSystem::open()) {
    std::fprintf(stderr, "usage: vcpu_loop_bench FILE [ROUNDS]; it needs /dev/kvm\n");
    return 2;
  }
  const auto main_loop = *EventLoop::create();
  Bench bench(*main_loop, argv[1]);
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  for (int i = 0; i < rounds; ++i) bench.round();
  bench.print();
}
