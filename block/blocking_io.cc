// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/blocking_io.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "block/request_fixup.h"
#include "loop/clock.h"

namespace skiff::block {
namespace {

constexpr int64_t kSpinBelowNs = 50'000;

void wait_until(int64_t deadline_ns) {
  // The default slack of 50 us is more than the latencies that are simulated.
  prctl(PR_SET_TIMERSLACK, 1);
  const timespec deadline = {.tv_sec = deadline_ns / 1'000'000'000,
                             .tv_nsec = deadline_ns % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nullptr) == EINTR) {
  }
}

void wait_latency(const NullDevice& device, NullWait how) {
  if (!device.has_latency()) return;
  const loop::MonotonicClock clock;
  const int64_t start_ns = clock.now_ns();
  const int64_t latency_ns = device.latency_ns(static_cast<uint64_t>(start_ns));
  if (how == NullWait::kSleep || latency_ns >= kSpinBelowNs)
    return wait_until(start_ns + latency_ns);
  while (clock.now_ns() < start_ns + latency_ns) {
  }
}

}  // namespace

int32_t perform_step(int fd, const IoStep& step, int rwf_flags) {
  const auto offset = static_cast<off_t>(step.offset_bytes);
  const auto count = static_cast<int>(step.iov.size());
  ssize_t result = 0;
  switch (step.op) {
    case IoOp::kRead:
      result = preadv2(fd, step.iov.data(), count, offset, rwf_flags);
      break;
    case IoOp::kWrite:
      result =
          pwritev2(fd, step.iov.data(), count, offset, rwf_flags | (step.dsync ? RWF_DSYNC : 0));
      break;
    case IoOp::kFlush:
      result = fdatasync(fd);
      break;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      result =
          fallocate(fd, fallocate_mode(step.op), offset, static_cast<off_t>(step.length_bytes));
      break;
  }
  return result < 0 ? -errno : static_cast<int32_t>(result);
}

int32_t run_blocking(const IoTarget& target, IoRequest& request, NullWait wait) {
  if (target.null != nullptr) {
    wait_latency(*target.null, wait);
    return target.null->result_of(request.op, request.offset_bytes, request.length_bytes);
  }
  IoInFlight& state = request.in_flight;
  // Who may block finds the kernel's two kinds of "once more" the same.
  do {
    state.progress.next_step(state.step);
  } while (state.progress.advance(perform_step(target.fd, state.step)) !=
           RequestProgress::Verdict::kFinished);
  return state.progress.result();
}

}  // namespace skiff::block
