// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/probe.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::Result;

constexpr uint64_t kReadBytes = 4096;
constexpr size_t kReads = 32;
constexpr size_t kPings = 64;

// What the engine asks the ring for.
constexpr std::array<std::pair<uint8_t, const char*>, 8> kOpsUsed = {{
    {IORING_OP_READ, "READ"},
    {IORING_OP_WRITE, "WRITE"},
    {IORING_OP_READV, "READV"},
    {IORING_OP_WRITEV, "WRITEV"},
    {IORING_OP_FSYNC, "FSYNC"},
    {IORING_OP_FALLOCATE, "FALLOCATE"},
    {IORING_OP_POLL_ADD, "POLL_ADD"},
    {IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
}};

Answer answer(bool yes) { return yes ? Answer::kYes : Answer::kNo; }

template <typename T>
std::optional<T> read_number(const std::string& path) {
  std::ifstream file(path);
  T value{};
  if (!(file >> value)) return std::nullopt;
  return value;
}

std::vector<std::string> missing_ops(int ring_fd) {
  constexpr size_t kOps = 256;
  std::vector<std::byte> memory(sizeof(io_uring_probe) + kOps * sizeof(io_uring_probe_op));
  auto* probe = reinterpret_cast<io_uring_probe*>(memory.data());
  std::vector<std::string> missing;
  if (syscall(__NR_io_uring_register, ring_fd, IORING_REGISTER_PROBE, probe, kOps) < 0)
    return {"IORING_REGISTER_PROBE itself"};
  for (const auto& [op, name] : kOpsUsed) {
    if (op > probe->last_op || (probe->ops[op].flags & IO_URING_OP_SUPPORTED) == 0)
      missing.emplace_back(name);
  }
  return missing;
}

// The kernel's threads for what a ring cannot do without blocking carry the number of the thread
// that submitted.
bool has_punt_worker(pid_t submitter) {
  const std::string name = fmt::format("iou-wrk-{}", submitter).substr(0, 15);
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::ifstream file(task.path() / "comm");
    std::string comm;
    if (std::getline(file, comm) && comm == name) return true;
  }
  return false;
}

void learn_dio_alignment(int fd, DiskFinding& finding) {
  struct statx facts = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) != 0) return;
  if ((facts.stx_mask & STATX_DIOALIGN) == 0) return;
  finding.offset_alignment = facts.stx_dio_offset_align;
  finding.memory_alignment = facts.stx_dio_mem_align;
}

void learn_fallocate(const IoDevice& device, DiskFinding& finding) {
  struct stat facts = {};
  if (fstat(device.target().fd, &facts) != 0) return;
  if (S_ISBLK(facts.st_mode)) {
    const std::string base =
        fmt::format("/sys/dev/block/{}:{}/", major(facts.st_rdev), minor(facts.st_rdev));
    for (const char* queue : {"queue/", "../queue/"}) {
      const auto most = read_number<uint64_t>(base + queue + "discard_max_bytes");
      if (!most) continue;
      finding.discard = answer(*most > 0);
      finding.write_zeroes = Answer::kYes;  // The kernel writes them where the disk cannot.
      return;
    }
    return;
  }
  const std::string directory = std::filesystem::path(device.name()).parent_path();
  const loop::UniqueFd trial(
      ::open(directory.empty() ? "." : directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!trial || ftruncate(trial.get(), 64 * 1024) != 0) return;
  const auto works = [&trial](IoOp op) {
    return answer(fallocate(trial.get(), fallocate_mode(op), 0, 64 * 1024) == 0);
  };
  finding.write_zeroes = works(IoOp::kWriteZeroes);
  finding.discard = works(IoOp::kDiscard);
}

// An engine and what its reads took.
struct Tried {
  EngineFinding finding;
  std::unique_ptr<IoEngine> engine;
  std::vector<int64_t> times_ns;
};

// Everything below is done by a thread of its own: its kernel workers are told from others' by it.
class Prober {
 public:
  Prober(const IoDevice& device, loop::WorkerPool& pool, DiskFinding& finding)
      : device_(device), pool_(pool), finding_(finding), buffer_(kReadBytes, 4096) {}

  Result<void> run() {
    auto made = loop::EventLoop::create();
    if (!made) return made.error();
    loop_ = *std::move(made);
    measure_wake();
    for (const IoEngineKind kind : kAllEngineKinds) {
      if (kind != IoEngineKind::kAuto) prepare(kind);
    }
    // The first pass brings the blocks into memory, where that is what the file does. The engines
    // take turns, so that what disturbs one disturbs all.
    for (const bool measured : {false, true}) {
      for (size_t i = 0; i < kReads; ++i) {
        for (Tried& one : tried_) read(one, i, measured);
      }
    }
    if (device_.target().fd >= 0 && loop_->uses_io_uring())
      finding_.punts = answer(has_punt_worker(gettid()));
    for (Tried& one : tried_) conclude(one);
    tried_.clear();  // Engines go before their loop.
    return {};
  }

  void release_loop() { loop_.reset(); }

 private:
  void measure_wake() {
    struct Ping : loop::WorkItem {
      loop::EventLoop* loop = nullptr;
      int64_t sent_ns = 0;
      int64_t late_ns = -1;
    };
    std::vector<int64_t> times_ns;
    for (size_t i = 0; i < kPings; ++i) {
      Ping ping;
      ping.loop = loop_.get();
      ping.run = [](loop::WorkItem& item) {
        auto& self = static_cast<Ping&>(item);
        self.sent_ns = self.loop->now_ns();
      };
      ping.done = [](loop::WorkItem& item) {
        auto& self = static_cast<Ping&>(item);
        self.late_ns = self.loop->now_ns() - self.sent_ns;
      };
      pool_.submit(*loop_, ping);
      while (ping.late_ns < 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
      times_ns.push_back(ping.late_ns);
    }
    std::ranges::sort(times_ns);
    finding_.wake_ns = times_ns[times_ns.size() / 2];
  }

  void prepare(IoEngineKind kind) {
    Tried one;
    one.finding.kind = kind;
    auto engine = make_io_engine(kind, device_.target(), *loop_, pool_);
    if (engine)
      one.engine = *std::move(engine);
    else
      one.finding.why_not = engine.error().message();
    tried_.push_back(std::move(one));
  }

  void read(Tried& one, size_t index, bool measured) {
    if (one.engine == nullptr) return;
    const uint64_t blocks = std::max<uint64_t>(device_.size_bytes() / kReadBytes, 1);
    // All over the file, the same places for each engine.
    const uint64_t block = (index * 2654435761U) % blocks;
    const uint64_t length = std::min(kReadBytes, device_.size_bytes());
    const iovec iov = {buffer_.data(), length};
    int32_t outcome = 0;
    IoRequest io = {.op = IoOp::kRead,
                    .offset_bytes = block * kReadBytes,
                    .length_bytes = length,
                    .iov = {&iov, 1},
                    .owner = &outcome};
    io.done = [](IoRequest& request, int32_t result) {
      *static_cast<int32_t*>(request.owner) = result;
    };
    IoRequest* request = &io;
    const int64_t start_ns = loop_->now_ns();
    one.engine->submit({&request, 1});
    while (one.engine->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
    if (measured) one.times_ns.push_back(loop_->now_ns() - start_ns);
    if (outcome >= 0) return;
    one.finding.why_not =
        Error::from_errno(-outcome, fmt::format("Reading {} bytes at {}", length, io.offset_bytes))
            .message();
    one.engine.reset();
  }

  void conclude(Tried& one) {
    one.finding.usable = one.engine != nullptr;
    if (one.finding.usable) {
      std::ranges::sort(one.times_ns);
      one.finding.p50_ns = one.times_ns[one.times_ns.size() / 2];
      one.finding.worst_ns = one.times_ns.back();
    }
    finding_.engines.push_back(one.finding);
  }

  const IoDevice& device_;
  loop::WorkerPool& pool_;
  DiskFinding& finding_;
  AlignedBuffer buffer_;
  std::unique_ptr<loop::EventLoop> loop_;
  std::vector<Tried> tried_;
};

const EngineFinding* find_engine(const DiskFinding& finding, IoEngineKind kind) {
  const auto found = std::ranges::find(finding.engines, kind, &EngineFinding::kind);
  return found != finding.engines.end() && found->usable ? &*found : nullptr;
}

double us(int64_t time_ns) { return static_cast<double>(time_ns) / 1e3; }

}  // namespace

bool supports_nowait(int fd) {
  char byte = 0;
  const iovec iov = {&byte, 1};
  return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

std::string io_uring_refusal(int os_error, int disabled) {
  if (os_error == ENOSYS)
    return "this kernel has no io_uring (Linux 5.11 or later), or a seccomp filter hides it";
  if (os_error == EPERM && disabled == 2)
    return "switched off for everybody; the administrator can allow it: sysctl -w "
           "kernel.io_uring_disabled=0";
  if (os_error == EPERM && disabled == 1)
    return "only for root and the group of sysctl kernel.io_uring_group; join it, or ask for "
           "sysctl -w kernel.io_uring_disabled=0";
  if (os_error == EPERM)
    return "refused by a seccomp filter, as containers have one; allow io_uring_setup, "
           "io_uring_enter and io_uring_register there";
  return Error::from_errno(os_error, "io_uring_setup").message();
}

IoUringFinding probe_io_uring() {
  io_uring_params params = {};
  const loop::UniqueFd ring(static_cast<int>(syscall(__NR_io_uring_setup, 8, &params)));
  if (!ring) {
    const int os_error = errno;
    const auto disabled = read_number<int>("/proc/sys/kernel/io_uring_disabled");
    return {.usable = false,
            .why_not = io_uring_refusal(os_error, disabled.value_or(-1)),
            .missing_ops = {}};
  }
  constexpr uint32_t kNeeded = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
  if ((params.features & kNeeded) != kNeeded)
    return {.usable = false,
            .why_not = "this kernel's io_uring is too old (Linux 5.11 or later)",
            .missing_ops = {}};
  return {.usable = true, .why_not = "", .missing_ops = missing_ops(ring.get())};
}

Result<DiskFinding> probe_engines(const IoDevice& device) {
  DiskFinding finding;
  finding.name = device.name();
  finding.size_bytes = device.size_bytes();
  finding.direct_io = device.target().direct_io;
  finding.io_uring = probe_io_uring();
  if (const int fd = device.target().fd; fd >= 0) {
    finding.nowait = answer(supports_nowait(fd));
    learn_dio_alignment(fd, finding);
    learn_fallocate(device, finding);
  }
  auto pool = loop::WorkerPool::create({.name = "probe"});
  if (!pool) return pool.error();
  Prober prober(device, **pool, finding);
  Result<void> outcome;
  auto thread = loop::Thread::create({.name = "probe"}, [&prober, &outcome, &pool] {
    outcome = prober.run();
    pool->reset();  // Before the loop that it wakes, and that belongs to this thread.
    prober.release_loop();
  });
  if (!thread) return thread.error();
  thread->join();
  if (!outcome) return outcome.error();
  finding.choice = explain_choice(finding);
  return finding;
}

std::string explain_choice(const DiskFinding& finding) {
  const EngineFinding* sync = find_engine(finding, IoEngineKind::kSync);
  const EngineFinding* ring = find_engine(finding, IoEngineKind::kIoUring);
  const EngineFinding* threads = find_engine(finding, IoEngineKind::kThreads);
  const EngineFinding* other = ring != nullptr ? ring : threads;
  if (sync == nullptr || other == nullptr) return "none: not even blocking reads work";
  const std::string_view name = engine_name(other->kind);
  // As the cost model has it.
  constexpr int64_t kHoldCapNs = 200'000;
  const bool inline_wins =
      static_cast<double>(sync->p50_ns) < 0.97 * static_cast<double>(other->p50_ns);
  std::string text;
  if (inline_wins && sync->p50_ns < kHoldCapNs) {
    text = fmt::format(
        "blocking calls on the loop itself ({:.1f} us, {} takes {:.1f} us) while a request is "
        "alone "
        "there or no longer than a hand-over; else {}",
        us(sync->p50_ns), name, us(other->p50_ns), name);
  } else {
    text = fmt::format("{} ({:.1f} us; a blocking call takes {:.1f} us and holds the loop)", name,
                       us(other->p50_ns), us(sync->p50_ns));
  }
  if (finding.punts == Answer::kYes)
    text +=
        "; io_uring serves this file with kernel threads, as it cannot be read without blocking";
  if (ring == nullptr) text += "; io_uring: " + finding.io_uring.why_not;
  return text;
}

}  // namespace skiff::block
