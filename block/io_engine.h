// SPDX-License-Identifier: GPL-2.0-or-later
// IoEngine: moves bytes between memory and one device, for one event loop.
//
// Thread: every call and every completion on the home loop.
// Ownership: the engine borrows loop and pool; it is destroyed when nothing is in flight.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "block/io_device.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

struct AdaptiveCounters;
struct IoRequest;
class IoEngine;

// What an engine keeps with a request, so that a request allocates nothing. Nobody else touches it.
struct IoInFlight {
  // Links that find their way back to the request.
  struct RingLink : loop::RingOperation {
    IoRequest* request = nullptr;
  };
  struct WorkLink : loop::WorkItem {
    IoRequest* request = nullptr;
  };

  IoEngine* engine = nullptr;
  IoRequest* next = nullptr;  // In the engine's lists.
  int32_t result = 0;         // Of a request that has ended and whose `done` has not run.
  // Of an engine that hands requests on to others and looks at how long they take.
  struct Chosen {
    IoEngine* chooser = nullptr;
    void (*done)(IoRequest& request, int32_t result) = nullptr;  // The submitter's.
    int64_t start_ns = 0;
    uint64_t arrivals = 0;
    uint64_t own_arrivals = 0;
    int64_t call_ns = 0;
    uint32_t depth = 0;
    bool shared = false;
    bool measure = false;
    bool explored = false;
    bool on_pool = false;
  };
  Chosen chosen;
  RequestProgress progress;
  IoStep step;  // What the kernel was asked for; it may point into here until it answers.
  RingLink ring;
  WorkLink work;
};

// One I/O. The submitter owns it: request and memory stay in place until `done` runs.
struct IoRequest {
  IoOp op = IoOp::kRead;
  bool fua = false;  // kWrite: on stable storage before it completes.
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;        // Of kRead and kWrite: the sum of `iov`, at most INT32_MAX.
  std::span<const iovec> iov = {};  // kRead and kWrite only; any number of entries.
  // Bytes moved, or -errno. Fewer bytes than asked for: a read that met the end of the file. kFlush
  // (data only, as fdatasync), kDiscard and kWriteZeroes give 0.
  void (*done)(IoRequest& request, int32_t result) = nullptr;
  void* owner = nullptr;
  IoInFlight in_flight = {};
};

class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual std::string_view name() const = 0;
  // Takes the whole batch. A request the kernel refuses completes later with its -errno.
  // A completion never runs inside submit(): callers may be half-way through an update there.
  virtual void submit(std::span<IoRequest* const> batch) = 0;
  virtual uint32_t in_flight() const = 0;
  // What it has chosen, if it chooses.
  virtual const AdaptiveCounters* adaptive_counters() const { return nullptr; }
};

enum class IoEngineKind : uint8_t {
  kAuto,      // The best of the others that this loop and this device allow.
  kSync,      // In submit(): blocks the loop for as long as the device takes.
  kWorker,    // One thread of the engine's own, in order of submission.
  kThreads,   // The worker pool: preadv2 and pwritev2.
  kPosixAio,  // glibc's aio_read() and so on: for comparison; it serves one request at a time.
  kLinuxAio,  // io_submit(): needs O_DIRECT, as without it io_submit() blocks.
  kIoUring,   // The loop's own ring.
};
inline constexpr std::array kAllEngineKinds = {
    IoEngineKind::kAuto,     IoEngineKind::kSync,     IoEngineKind::kWorker, IoEngineKind::kThreads,
    IoEngineKind::kPosixAio, IoEngineKind::kLinuxAio, IoEngineKind::kIoUring};

// As users write it: "auto", "sync", "worker", "threads", "posix-aio", "linux-aio", "io_uring".
std::string_view engine_name(IoEngineKind kind);
std::optional<IoEngineKind> parse_engine(std::string_view name);

// An engine for one device and one loop; any of them works on a NullDevice. kUnsupported, with what
// to do instead, for kIoUring on a loop that has no ring and for kLinuxAio without O_DIRECT;
// kExhausted when the system has no more threads or aio contexts. The target's device and the pool
// outlive the engine; the pool goes before the loop.
loop::Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, const IoTarget& target,
                                                       loop::EventLoop& loop,
                                                       loop::WorkerPool& pool);

}  // namespace skiff::block
