// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/ring.h"

#include <linux/time_types.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "loop/check.h"
#include "loop/io_uring_abi.h"
#include "loop/result.h"

namespace skiff::loop {
namespace {

constexpr uint32_t kRequiredFeatures =
    IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SINGLE_MMAP | IORING_FEAT_SUBMIT_STABLE;

// What may be dropped when a kernel does not know it, the newest first. TASKRUN_FLAG is refused
// without DEFER_TASKRUN (COOP_TASKRUN is never asked for: on a vCPU it delays completions to the
// next tick). A ring without DEFER_TASKRUN works, only with more interruptions.
constexpr std::array<uint32_t, 4> kOptionalFlags = {
    IORING_SETUP_NO_SQARRAY,
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED,
    IORING_SETUP_SUBMIT_ALL,
};

uint32_t load_acquire(uint32_t* shared) {
  return std::atomic_ref(*shared).load(std::memory_order_acquire);
}

void store_release(uint32_t* shared, uint32_t value) {
  std::atomic_ref(*shared).store(value, std::memory_order_release);
}

long register_call(int ring_fd, unsigned what, void* argument, unsigned count) {
  return syscall(SYS_io_uring_register, ring_fd, what, argument, count);
}

Error refusal(int os_error) {
  const std::string facts = Error::from_errno(os_error, "Setting up io_uring").message();
  std::string advice;
  if (os_error == EPERM)
    advice = "; see /proc/sys/kernel/io_uring_disabled and the seccomp filter";
  else if (os_error == ENOMEM)
    advice = "; raise the limit on locked memory (ulimit -l)";
  return Error(ErrorKind::kUnsupported, facts + advice, os_error);
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::create(const Options& options) {
  std::unique_ptr<Ring> ring(new Ring);
  SKIFF_RETURN_IF_ERROR(ring->set_up(options));
  return ring;
}

Result<void> Ring::set_up(const Options& options) {
  uint32_t flags =
      IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_NO_SQARRAY;
  if (options.deferred_task_work) {
    // Disabled at first: the kernel takes for the single issuer the thread that enables the ring.
    flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED | IORING_SETUP_DEFER_TASKRUN |
             IORING_SETUP_TASKRUN_FLAG;
  }
  for (size_t dropped = 0;;) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = options.cq_entries;
    const long fd = syscall(SYS_io_uring_setup, options.sq_entries, &params);  // Close-on-exec.
    if (fd >= 0) {
      fd_.reset(static_cast<int>(fd));
      setup_flags_ = flags;
      enabled_ = (flags & IORING_SETUP_R_DISABLED) == 0;
      learn_opcodes();
      return map(params);
    }
    if (errno != EINVAL || dropped == kOptionalFlags.size()) return refusal(errno);
    flags &= ~kOptionalFlags[dropped++];
  }
}

Result<void> Ring::map(const io_uring_params& params) {
  if ((params.features & kRequiredFeatures) != kRequiredFeatures) {
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Setting up io_uring: this kernel's is too old (features {:#x}; Linux "
                             "5.11 has what is needed)",
                             params.features));
  }
  const auto map_at = [this](size_t bytes, uint64_t offset) {
    return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_.get(),
                static_cast<off_t>(offset));
  };
  rings_bytes_ = std::max<size_t>(params.sq_off.array + params.sq_entries * sizeof(uint32_t),
                                  params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
  void* rings = map_at(rings_bytes_, IORING_OFF_SQ_RING);
  if (rings == MAP_FAILED) return refusal(errno);
  rings_ = rings;
  sqes_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
  void* sqes = map_at(sqes_bytes_, IORING_OFF_SQES);
  if (sqes == MAP_FAILED) return refusal(errno);
  sqes_ = static_cast<io_uring_sqe*>(sqes);
  // A forked child must not share the queues.
  madvise(rings_, rings_bytes_, MADV_DONTFORK);
  madvise(sqes_, sqes_bytes_, MADV_DONTFORK);

  const auto at = [this](uint32_t offset) {
    return reinterpret_cast<uint32_t*>(static_cast<char*>(rings_) + offset);
  };
  sq_head_ = at(params.sq_off.head);
  sq_tail_ = at(params.sq_off.tail);
  sq_flags_ = at(params.sq_off.flags);
  cq_head_ = at(params.cq_off.head);
  cq_tail_ = at(params.cq_off.tail);
  cqes_ = reinterpret_cast<const io_uring_cqe*>(at(params.cq_off.cqes));
  sq_mask_ = *at(params.sq_off.ring_mask);
  sq_entries_ = params.sq_entries;
  cq_mask_ = *at(params.cq_off.ring_mask);
  if ((setup_flags_ & IORING_SETUP_NO_SQARRAY) == 0) {
    for (uint32_t i = 0; i < sq_entries_; ++i) at(params.sq_off.array)[i] = i;
  }
  return {};
}

Ring::~Ring() {
  if (sqes_ != nullptr) munmap(sqes_, sqes_bytes_);
  if (rings_ != nullptr) munmap(rings_, rings_bytes_);
}

void Ring::enable() {
  if (enabled_) return;
  enabled_ = true;
  SKIFF_CHECK(register_call(fd_.get(), IORING_REGISTER_ENABLE_RINGS, nullptr, 0) == 0);
}

void Ring::limit_kernel_workers(uint32_t most) {
  std::array<uint32_t, 2> limits = {0, most};  // Bounded: as the kernel has it; unbounded.
  register_call(fd_.get(), IORING_REGISTER_IOWQ_MAX_WORKERS, limits.data(), limits.size());
}

void Ring::learn_opcodes() {
  constexpr size_t kOpcodes = 64;
  alignas(io_uring_probe)
      std::array<char, sizeof(io_uring_probe) + kOpcodes * sizeof(io_uring_probe_op)>
          room{};
  auto* probe = reinterpret_cast<io_uring_probe*>(room.data());
  if (register_call(fd_.get(), IORING_REGISTER_PROBE, probe, kOpcodes) != 0) return;
  const auto* ops = reinterpret_cast<const io_uring_probe_op*>(probe + 1);
  for (size_t i = 0; i < std::min<size_t>(probe->ops_len, kOpcodes); ++i) {
    if ((ops[i].flags & IO_URING_OP_SUPPORTED) != 0) opcodes_ |= uint64_t{1} << ops[i].op;
  }
}

std::optional<uint32_t> Ring::register_file(int fd) {
  if (!has_file_table_) {
    std::array<int, kFileSlots> none;
    none.fill(-1);
    if (register_call(fd_.get(), IORING_REGISTER_FILES, none.data(), kFileSlots) != 0)
      return std::nullopt;
    has_file_table_ = true;
  }
  const auto index = static_cast<uint32_t>(std::countr_one(used_file_slots_));
  if (index == kFileSlots) return std::nullopt;
  io_uring_files_update update{};
  update.offset = index;
  update.fds = reinterpret_cast<uint64_t>(&fd);
  if (register_call(fd_.get(), IORING_REGISTER_FILES_UPDATE, &update, 1) != 1) return std::nullopt;
  used_file_slots_ |= uint64_t{1} << index;
  return index;
}

void Ring::unregister_file(uint32_t index) {
  int none = -1;
  io_uring_files_update update{};
  update.offset = index;
  update.fds = reinterpret_cast<uint64_t>(&none);
  // A refusal leaves the slot as it is: it must not be given to another file.
  if (register_call(fd_.get(), IORING_REGISTER_FILES_UPDATE, &update, 1) == 1)
    used_file_slots_ &= ~(uint64_t{1} << index);
}

io_uring_sqe* Ring::next_sqe() {
  if (local_tail_ - load_acquire(sq_head_) == sq_entries_) return nullptr;
  io_uring_sqe* sqe = &sqes_[local_tail_++ & sq_mask_];
  std::memset(sqe, 0, sizeof(*sqe));
  return sqe;
}

uint32_t Ring::unsubmitted() const { return local_tail_ - load_acquire(sq_head_); }

int Ring::enter(Enter what, int64_t timeout_ns) {
  SKIFF_CHECK(enabled_);
  store_release(sq_tail_, local_tail_);
  __kernel_timespec timeout{};
  io_uring_getevents_arg argument{};
  argument.sigmask_sz = _NSIG / 8;
  if (timeout_ns >= 0) {
    timeout.tv_sec = timeout_ns / 1'000'000'000;
    timeout.tv_nsec = timeout_ns % 1'000'000'000;
    argument.ts = reinterpret_cast<uint64_t>(&timeout);
  }
  const bool wait = what == Enter::kWait;
  const unsigned flags =
      what == Enter::kSubmit ? 0U : IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  const long result =
      syscall(SYS_io_uring_enter, fd_.get(), unsubmitted(), wait ? 1U : 0U, flags,
              flags != 0 ? &argument : nullptr, flags != 0 ? sizeof(argument) : size_t{0});
  return result >= 0 ? 0 : -errno;
}

bool Ring::has_completions() const { return *cq_head_ != load_acquire(cq_tail_); }

bool Ring::pop(Completion& completion) {
  const uint32_t head = *cq_head_;  // Only we write it.
  if (head == load_acquire(cq_tail_)) return false;
  const io_uring_cqe& cqe = cqes_[head & cq_mask_];
  completion = {.user_data = cqe.user_data, .result = cqe.res, .flags = cqe.flags};
  store_release(cq_head_, head + 1);
  return true;
}

bool Ring::needs_reap() const {
  return (load_acquire(sq_flags_) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

bool Ring::overflowed() const { return (load_acquire(sq_flags_) & IORING_SQ_CQ_OVERFLOW) != 0; }

}  // namespace skiff::loop
