// SPDX-License-Identifier: GPL-2.0-or-later
// Ring: one io_uring, mapped: SQEs out, CQEs in, one system call for both.
//
// Written against the kernel's interface rather than on liburing's calls, because one enter has to
// submit, wait with a timeout and run deferred task work, and liburing 2.3 does not say when its
// own calls enter. Thread: one, but for create(): with SINGLE_ISSUER the one that calls enable(),
// as the kernel remembers who that was. Ownership: owns descriptor and mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "loop/io_uring_abi.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

class Ring {
 public:
  struct Options {
    uint32_t sq_entries = 256;
    uint32_t cq_entries = 1024;
    // Completions are delivered only while the thread waits in enter(); else at once, by
    // interrupting whatever the thread does.
    bool deferred_task_work = true;
  };
  struct Completion {
    uint64_t user_data = 0;
    int32_t result = 0;
    uint32_t flags = 0;
  };

  // With the richest flags the kernel takes. kUnsupported, with the kernel's reason, when there is
  // no io_uring for us or it lacks EXT_ARG or NODROP.
  static Result<std::unique_ptr<Ring>> create(const Options& options);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // By the thread that will use the ring from now on, before its first enter().
  void enable();
  bool enabled() const { return enabled_; }
  // How many of the kernel's own threads may serve punted requests that can block without end.
  // Without a limit a burst on a slow file starts one for each request. Ignored before Linux 5.15.
  void limit_kernel_workers(uint32_t most);
  // Does the kernel know this IORING_OP_*? One that cannot be asked is taken to know all.
  bool supports(uint8_t opcode) const {
    return opcode < 64 && (opcodes_ == 0 || (opcodes_ >> opcode & 1) != 0);
  }

  // Makes `fd` a fixed file, which SQEs name by the index with IOSQE_FIXED_FILE: saves the kernel
  // the look-up and a count that all users of the file share. The ring keeps the file open until
  // unregister_file(), old kernels up to a second longer. Nothing when there is no room or the
  // kernel refuses. Both by the ring's thread, once there is one.
  std::optional<uint32_t> register_file(int fd);
  void unregister_file(uint32_t index);
  int fd() const { return fd_.get(); }
  uint32_t setup_flags() const { return setup_flags_; }

  // The next free SQE, zeroed; null when the queue is full.
  io_uring_sqe* next_sqe();
  uint32_t unsubmitted() const;

  enum class Enter : uint8_t {
    kSubmit,  // Only hands over the SQEs.
    kReap,    // Also runs deferred task work, and flushes CQEs that did not fit.
    kWait,    // Also sleeps until there is a CQE, a signal or a timeout.
  };
  static constexpr int64_t kForever = -1;
  // 0, or -errno: -ETIME, -EINTR and -EBUSY or -EAGAIN (reap first) are normal.
  int enter(Enter what, int64_t timeout_ns = kForever);

  bool pop(Completion& completion);
  bool has_completions() const;
  // Must enter(kReap) to see all there is.
  bool needs_reap() const;
  bool overflowed() const;

 private:
  Ring() = default;
  Result<void> set_up(const Options& options);
  Result<void> map(const io_uring_params& params);
  void learn_opcodes();

  UniqueFd fd_;
  bool enabled_ = false;
  uint32_t setup_flags_ = 0;
  uint64_t opcodes_ = 0;  // One bit each.
  static constexpr uint32_t kFileSlots = 64;
  bool has_file_table_ = false;
  uint64_t used_file_slots_ = 0;

  void* rings_ = nullptr;
  size_t rings_bytes_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  size_t sqes_bytes_ = 0;

  // Shared with the kernel, hence atomic accesses.
  uint32_t* sq_head_ = nullptr;
  uint32_t* sq_tail_ = nullptr;
  uint32_t* sq_flags_ = nullptr;
  uint32_t* cq_head_ = nullptr;
  uint32_t* cq_tail_ = nullptr;
  const io_uring_cqe* cqes_ = nullptr;

  uint32_t sq_mask_ = 0;
  uint32_t sq_entries_ = 0;
  uint32_t cq_mask_ = 0;
  uint32_t local_tail_ = 0;  // SQEs handed out; published by enter().
};

}  // namespace skiff::loop
