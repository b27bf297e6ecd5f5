// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/faulty_engine.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"

namespace skiff::block {
namespace {

// Enough to be sure of the repairs, and an end to them with p=1.
constexpr uint32_t kFaultsMax = 32;

BlockOp block_op(IoOp op) {
  switch (op) {
    case IoOp::kRead:
      return BlockOp::kRead;
    case IoOp::kWrite:
      return BlockOp::kWrite;
    case IoOp::kFlush:
      return BlockOp::kFlush;
    case IoOp::kDiscard:
      return BlockOp::kDiscard;
    case IoOp::kWriteZeroes:
      break;
  }
  return BlockOp::kWriteZeroes;
}

}  // namespace

// One request that is carried out step by step. Allocated: only requests that a rule picked are.
struct FaultyEngine::Job {
  FaultyEngine* engine = nullptr;
  IoRequest* whole = nullptr;
  RequestProgress progress;
  IoStep step;
  std::vector<iovec> iov;
  IoRequest io;
  uint32_t faults = 0;
};

FaultyEngine::~FaultyEngine() { SKIFF_CHECK(jobs_ == 0); }

void FaultyEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  if (dice_.is_idle()) return below_->submit(batch);
  std::vector<IoRequest*> untouched;
  for (IoRequest* request : batch) {
    const bool possible =
        refusal_of(request->op, request->offset_bytes, request->length_bytes) == 0;
    const FaultRule::Io fault =
        possible
            ? dice_.next_io(block_op(request->op), request->offset_bytes, request->length_bytes)
            : FaultRule::Io::kNone;
    if (fault == FaultRule::Io::kNone)
      untouched.push_back(request);
    else
      start(*request, fault);
  }
  if (!untouched.empty()) below_->submit(untouched);
}

void FaultyEngine::start(IoRequest& request, FaultRule::Io first) {
  auto job = std::make_unique<Job>();
  job->engine = this;
  job->whole = &request;
  job->progress.begin(request.op, request.offset_bytes, request.length_bytes, request.iov);
  ++jobs_;
  run_step(*job.release(), first);
}

// Never ends the request by itself: interruptions are fewer than what exhausts its patience, and
// then the engine below is asked.
void FaultyEngine::run_step(Job& job, FaultRule::Io fault) {
  constexpr uint32_t kAgainMax = 3;
  for (uint32_t again = 0; fault == FaultRule::Io::kIntr || fault == FaultRule::Io::kAgain;) {
    const bool is_again = fault == FaultRule::Io::kAgain;
    const auto verdict = job.progress.advance(is_again ? -EAGAIN : -EINTR);
    SKIFF_CHECK(verdict != RequestProgress::Verdict::kFinished);
    again += is_again ? 1 : 0;
    const bool enough = ++job.faults >= kFaultsMax || again >= kAgainMax;
    fault = enough ? FaultRule::Io::kNone
                   : dice_.next_io(block_op(job.whole->op), job.whole->offset_bytes,
                                   job.whole->length_bytes);
  }
  job.progress.next_step(job.step);
  uint64_t bytes = job.step.length_bytes;
  const uint64_t unit = direct_io_ ? 512 : 1;
  if (fault == FaultRule::Io::kShort && is_transfer(job.step.op) && bytes > unit) {
    ++job.faults;
    bytes = dice_.pick(1, (bytes - 1) / unit) * unit;
  }
  job.iov.clear();
  uint64_t left_bytes = bytes;
  for (const iovec& segment : job.step.iov) {
    if (left_bytes == 0) break;
    job.iov.push_back({segment.iov_base, std::min<uint64_t>(segment.iov_len, left_bytes)});
    left_bytes -= job.iov.back().iov_len;
  }
  job.io.op = job.step.op;
  job.io.fua = job.whole->fua && job.step.op == IoOp::kWrite;
  job.io.offset_bytes = job.step.offset_bytes;
  job.io.length_bytes = bytes;
  job.io.iov = job.iov;
  job.io.done = &FaultyEngine::on_step_done;
  job.io.owner = &job;
  IoRequest* one = &job.io;
  below_->submit({&one, 1});
}

void FaultyEngine::on_step_done(IoRequest& io, int32_t result) {
  std::unique_ptr<Job> job(static_cast<Job*>(io.owner));
  FaultyEngine& self = *job->engine;
  self.home_.assert_here();
  if (job->progress.advance(result) != RequestProgress::Verdict::kFinished) {
    const FaultRule::Io fault =
        job->faults >= kFaultsMax
            ? FaultRule::Io::kNone
            : self.dice_.next_io(block_op(job->whole->op), job->whole->offset_bytes,
                                 job->whole->length_bytes);
    return self.run_step(*job.release(), fault);
  }
  --self.jobs_;
  job->whole->done(*job->whole, job->progress.result());
}

}  // namespace skiff::block
