// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/uring_backend.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_loop_state.h"
#include "loop/loop_backend.h"
#include "loop/message_list.h"
#include "loop/result.h"
#include "loop/ring.h"
#include "loop/tsan.h"
#include "loop/unique_fd.h"

namespace skiff::loop {
namespace {

// What a CQE belongs to is in the low bits of its user_data: the address of a RingOperation, that
// of a Slot, or one of our own few names.
constexpr uint64_t kTagMask = 7;
constexpr uint64_t kOperationTag = 0;
constexpr uint64_t kSlotTag = 1;
constexpr uint64_t kOwnTag = 2;
constexpr uint64_t kCancelName = kOwnTag;
constexpr uint64_t kWakeName = kOwnTag + (1 << 3);
constexpr uint64_t kInterruptName = kOwnTag + (2 << 3);
constexpr uint64_t kInterruptUpdateName = kOwnTag + (3 << 3);

static_assert(alignof(RingOperation) > kTagMask);

constexpr uint32_t kMaxKernelWorkers = 16;

template <typename T>
uint64_t address_of(T& object) {
  return reinterpret_cast<uint64_t>(&object);
}

void prepare_read(io_uring_sqe& sqe, int fd, uint64_t& counter, uint64_t user_data) {
  sqe.opcode = IORING_OP_READ;
  sqe.fd = fd;
  sqe.addr = address_of(counter);
  sqe.len = sizeof(counter);
  sqe.user_data = user_data;
}

void notify(int event_fd) {
  const uint64_t one = 1;
  SKIFF_TSAN_NOTIFIED(event_fd);
  SKIFF_CHECK(::write(event_fd, &one, sizeof(one)) == sizeof(one));
}

}  // namespace

Result<std::unique_ptr<LoopBackend>> create_uring_backend(LoopState& state,
                                                          EventLoop::TaskWork task_work) {
  const bool deferred = task_work == EventLoop::TaskWork::kDeferred;
  // A vCPU's ring is small: there may be 255 of them, and each serves one guest CPU.
  Result<std::unique_ptr<Ring>> ring = Ring::create({.sq_entries = deferred ? 256U : 64U,
                                                     .cq_entries = deferred ? 1024U : 256U,
                                                     .deferred_task_work = deferred});
  if (!ring) return ring.error();
  UniqueFd wake_fd(eventfd(0, EFD_CLOEXEC));  // Blocking, as EventNotifier's.
  if (!wake_fd) return Error::from_errno(errno, "Creating an eventfd");
  return std::unique_ptr<LoopBackend>(
      std::make_unique<UringBackend>(state, *std::move(ring), std::move(wake_fd)));
}

UringBackend::UringBackend(LoopState& state, std::unique_ptr<Ring> ring, UniqueFd wake_fd)
    : state_(state), ring_(std::move(ring)), wake_fd_(std::move(wake_fd)) {}

UringBackend::~UringBackend() {
  SKIFF_CHECK(operations_in_flight_ == 0);  // Their owners wait for them before the loop goes.
  if (!bound_) return;
  // Closing the ring does not wait: a READ could still write to memory that is gone.
  closing_ = true;
  cancel(kWakeName);
  if (interrupt_armed_) cancel(kInterruptName);
  while (own_in_flight_ > 0) {
    enter(Ring::Enter::kWait);
    reap();
  }
}

void UringBackend::bind() {
  bound_ = true;
  ring_->enable();
  ring_->limit_kernel_workers(kMaxKernelWorkers);
  arm_wake();
  for (Source* source : std::exchange(before_bind_, {})) arm(*source);
}

int UringBackend::enter(Ring::Enter what, int64_t timeout_ns) {
  add_one(state_.enters);
  const int result = ring_->enter(what, timeout_ns);
  // Anything else is a mistake of ours: a wrong thread, a bad descriptor.
  SKIFF_CHECK(result == 0 || result == -ETIME || result == -EINTR || result == -EBUSY ||
              result == -EAGAIN || result == -ENOMEM);
  return result;
}

void UringBackend::poll(int64_t timeout_ns) {
  const bool may_sleep = timeout_ns != 0 && !ring_->has_completions();
  if (may_sleep) {
    enter(Ring::Enter::kWait, timeout_ns);
  } else if (ring_->unsubmitted() > 0 || ring_->needs_reap()) {
    enter(Ring::Enter::kReap);
  }
  reap();
}

void UringBackend::reap() {
  Ring::Completion completion;
  while (true) {
    while (ring_->pop(completion)) on_completion(completion);
    if (!ring_->overflowed()) return;
    // The kernel holds back what did not fit.
    enter(Ring::Enter::kReap);
  }
}

void UringBackend::on_completion(const Ring::Completion& completion) {
  switch (completion.user_data & kTagMask) {
    case kOperationTag: {
      auto* operation = reinterpret_cast<RingOperation*>(completion.user_data);
      if ((completion.flags & IORING_CQE_F_MORE) == 0) --operations_in_flight_;
      ++state_.arrivals;
      add_one(state_.operations);
      state_.polling.completions().came = true;
      state_.completions.push({operation, completion.result, completion.flags});
      return;
    }
    case kSlotTag:
      --own_in_flight_;
      on_slot(*reinterpret_cast<Slot*>(completion.user_data & ~kTagMask), completion.result);
      return;
    default:
      break;
  }
  --own_in_flight_;
  if (completion.user_data == kWakeName && !closing_)
    arm_wake();
  else if (completion.user_data == kInterruptName)
    interrupt_armed_ = false;
}

void UringBackend::on_slot(Slot& slot, int32_t result) {
  Source* source = std::exchange(slot.source, nullptr);
  slot.in_flight = false;
  free_slots_.push_back(&slot);
  const int give_back_fd = std::exchange(slot.give_back_fd, -1);
  if (source == nullptr) {
    if (give_back_fd >= 0 && result == sizeof(slot.counter)) notify(give_back_fd);
    return;
  }
  source->slot = nullptr;
  if (source->kind == Source::Kind::kCounter) {
    SKIFF_TSAN_CONSUMED(source->fd);
    source->ready |= POLLIN;
  } else if (result >= 0) {
    source->ready |= static_cast<uint32_t>(result);
  } else {
    source->ready |= result == -EBADF ? POLLNVAL : POLLERR;  // As poll(2) would say.
  }
  state_.polling.descriptors().came = true;
  if (!MessageList::is_linked(*source)) state_.arrived(*source);
}

void UringBackend::wake() { notify(wake_fd_.get()); }

void UringBackend::arm_wake() {
  prepare_read(*get_sqe(), wake_fd_.get(), wake_counter_, kWakeName);
  ++own_in_flight_;
}

void UringBackend::end_turn(int64_t delay_ns) {
  if (delay_ns != kForever) arm_interrupt(delay_ns);
  if (ring_->unsubmitted() > 0) enter(Ring::Enter::kSubmit);
}

void UringBackend::arm_interrupt(int64_t delay_ns) {
  const int64_t at_ns = state_.monotonic_clock.now_ns() + delay_ns;
  // One that comes too early only costs a turn; it is armed again there.
  if (interrupt_armed_ && interrupt_at_ns_ <= at_ns) return;
  // Zero would disarm nothing and fire nothing: at least 1 ns.
  const int64_t after_ns = std::max<int64_t>(1, delay_ns);
  // The kernel reads it when the SQE is submitted, which end_turn() does next.
  interrupt_after_.tv_sec = after_ns / 1'000'000'000;
  interrupt_after_.tv_nsec = after_ns % 1'000'000'000;
  io_uring_sqe& sqe = *get_sqe();
  sqe.fd = -1;
  if (interrupt_armed_) {
    sqe.opcode = IORING_OP_TIMEOUT_REMOVE;
    sqe.addr = kInterruptName;
    sqe.addr2 = address_of(interrupt_after_);
    sqe.timeout_flags = IORING_TIMEOUT_UPDATE;
    sqe.user_data = kInterruptUpdateName;
  } else {
    sqe.opcode = IORING_OP_TIMEOUT;
    sqe.addr = address_of(interrupt_after_);
    sqe.len = 1;
    sqe.user_data = kInterruptName;
  }
  ++own_in_flight_;
  interrupt_armed_ = true;
  interrupt_at_ns_ = at_ns;
}

void UringBackend::arm(Source& source) {
  if (!bound_) {
    if (std::find(before_bind_.begin(), before_bind_.end(), &source) == before_bind_.end())
      before_bind_.push_back(&source);
    return;
  }
  if (source.slot != nullptr) {
    if (static_cast<Slot*>(source.slot)->wanted == source.wanted) return;
    detach(source);
  }
  io_uring_sqe& sqe = *get_sqe();
  Slot& slot = take_slot();
  slot.source = &source;
  slot.wanted = source.wanted;
  source.slot = &slot;
  const uint64_t name = address_of(slot) | kSlotTag;
  if (source.kind == Source::Kind::kCounter) {
    prepare_read(sqe, source.fd, slot.counter, name);
  } else {
    sqe.opcode = IORING_OP_POLL_ADD;
    sqe.fd = source.fd;
    sqe.poll32_events = source.wanted;
    sqe.user_data = name;
  }
  slot.in_flight = true;
  ++own_in_flight_;
}

void UringBackend::disarm(Source& source) {
  std::erase(before_bind_, &source);
  // A count that was read but that nobody was told of goes back: the eventfd's next watcher,
  // perhaps on another loop, would miss it for ever.
  const bool counts = source.kind == Source::Kind::kCounter && source.gives_back;
  if (counts && source.ready != 0) notify(source.fd);
  if (source.slot == nullptr) return;
  Slot& slot = *static_cast<Slot*>(source.slot);
  if (counts) slot.give_back_fd = source.fd;
  detach(source);
  // At once: the request holds the file open, and its number may soon be another file's.
  flush();
  if (slot.in_flight) slot.give_back_fd = -1;
}

void UringBackend::detach(Source& source) {
  Slot& slot = *static_cast<Slot*>(std::exchange(source.slot, nullptr));
  slot.source = nullptr;
  cancel(address_of(slot) | kSlotTag);
}

void UringBackend::cancel(uint64_t user_data) {
  io_uring_sqe& sqe = *get_sqe();
  sqe.opcode = IORING_OP_ASYNC_CANCEL;
  sqe.fd = -1;
  sqe.addr = user_data;
  sqe.user_data = kCancelName;
  ++own_in_flight_;
}

bool UringBackend::has_news() const { return ring_->has_completions() || ring_->needs_reap(); }

bool UringBackend::has_unsubmitted() const { return ring_->unsubmitted() != 0; }

void UringBackend::submit() {
  if (bound_ && ring_->unsubmitted() > 0) enter(Ring::Enter::kSubmit);
}

void UringBackend::flush() {
  enter(Ring::Enter::kReap);
  reap();
}

UringBackend::Slot& UringBackend::take_slot() {
  if (free_slots_.empty()) {
    slots_.push_back(std::make_unique<Slot>());
    free_slots_.reserve(slots_.size());
    return *slots_.back();
  }
  Slot& slot = *free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

io_uring_sqe* UringBackend::next_sqe(RingOperation& operation) {
  io_uring_sqe* sqe = get_sqe();
  sqe->user_data = address_of(operation) | kOperationTag;
  ++operations_in_flight_;
  return sqe;
}

io_uring_sqe* UringBackend::get_sqe() {
  while (true) {
    if (io_uring_sqe* sqe = ring_->next_sqe(); sqe != nullptr) return sqe;
    state_.bind_here();  // From now on the kernel knows this thread as the ring's.
    const int result = enter(Ring::Enter::kSubmit);
    // Completions must be taken before the kernel takes more; they wait in the loop's queue.
    if (result == -EBUSY || result == -EAGAIN) flush();
  }
}

}  // namespace skiff::loop
