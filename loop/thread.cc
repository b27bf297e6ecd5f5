// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread_annotations.h"

namespace skiff::loop {
namespace {

struct PolicyName {
  SchedPolicy::Kind kind;
  std::string_view name;
  int number;
  bool has_priority;
};

constexpr std::array<PolicyName, 5> kPolicies = {{
    {SchedPolicy::Kind::kOther, "other", SCHED_OTHER, false},
    {SchedPolicy::Kind::kFifo, "fifo", SCHED_FIFO, true},
    {SchedPolicy::Kind::kRr, "rr", SCHED_RR, true},
    {SchedPolicy::Kind::kBatch, "batch", SCHED_BATCH, false},
    {SchedPolicy::Kind::kIdle, "idle", SCHED_IDLE, false},
}};

const PolicyName& policy_of(SchedPolicy::Kind kind) {
  for (const PolicyName& policy : kPolicies)
    if (policy.kind == kind) return policy;
  check_failed("every policy has a name", __FILE__, __LINE__);
}

// What a new thread is handed. It and the creator meet at `settled` only if there is something that
// can fail: a meeting costs two thread switches, which the start of 64 vCPUs would feel.
struct Start {
  Thread::Options options;
  std::function<void()> body;
  bool meets_creator = false;

  Mutex mutex;
  ConditionVariable changed;
  std::optional<Result<void>> settled SKIFF_GUARDED_BY(mutex);
};

Result<void> apply_settings(const Thread::Options& options) {
  if (!options.cpus.empty()) SKIFF_RETURN_IF_ERROR(options.cpus.apply_to_current_thread());
  return options.sched.apply_to_current_thread();
}

void set_signal_mask(const std::vector<int>& unblocked_signals) {
  sigset_t blocked;
  sigfillset(&blocked);
  // A fault of the thread itself: blocked, the kernel would kill the process past any handler.
  sigdelset(&blocked, SIGBUS);
  for (const int signal : unblocked_signals) sigdelset(&blocked, signal);
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

void* thread_main(void* argument) {
  const std::unique_ptr<std::shared_ptr<Start>> holder(
      static_cast<std::shared_ptr<Start>*>(argument));
  Start& start = **holder;
  set_signal_mask(start.options.unblocked_signals);
  pthread_setname_np(pthread_self(), start.options.name.substr(0, 15).c_str());
  if (start.meets_creator) {
    Result<void> applied = apply_settings(start.options);
    const bool refused = !applied;
    {
      MutexLock lock(start.mutex);
      start.settled = std::move(applied);
      start.changed.notify_one();
    }
    if (refused) return nullptr;
  }
  start.body();
  start.body = nullptr;  // What it captured goes on the thread that used it.
  return nullptr;
}

Result<pthread_t> start_thread(const Thread::Options& options, void* argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, options.stack_bytes);
  // Not even a moment with the creator's mask: a signal meant for another thread could end up here.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread{};
  const int os_error = pthread_create(&thread, &attributes, thread_main, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (os_error == 0) return thread;
  return Error(
      ErrorKind::kExhausted,
      Error::from_errno(os_error, fmt::format("Starting thread {}", options.name)).message() +
          "; check the limits on processes (ulimit -u, pids.max) and memory",
      os_error);
}

}  // namespace

Result<SchedPolicy> SchedPolicy::parse(std::string_view text) {
  const size_t colon = text.find(':');
  for (const PolicyName& policy : kPolicies) {
    if (text.substr(0, colon) != policy.name) continue;
    if (!policy.has_priority) {
      if (colon != std::string_view::npos) break;
      return SchedPolicy{policy.kind, 0};
    }
    if (colon == std::string_view::npos) break;
    const std::string_view number = text.substr(colon + 1);
    int priority = 0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), priority);
    if (error != std::errc() || end != number.data() + number.size()) break;
    if (priority < 1 || priority > 99) break;
    return SchedPolicy{policy.kind, priority};
  }
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("\"{}\" is no scheduling policy: give other, batch, idle, fifo:N or "
                           "rr:N with N from 1 to 99",
                           text));
}

std::string SchedPolicy::to_string() const {
  const PolicyName& policy = policy_of(kind);
  return policy.has_priority ? fmt::format("{}:{}", policy.name, priority)
                             : std::string(policy.name);
}

Result<void> SchedPolicy::apply_to_current_thread() const {
  sched_param parameters{};
  parameters.sched_priority = priority;
  if (sched_setscheduler(0, policy_of(kind).number, &parameters) == 0) return {};
  const int os_error = errno;
  const Error error = Error::from_errno(os_error, "Setting scheduling policy " + to_string());
  if (os_error != EPERM) return error;
  return Error(ErrorKind::kPermission,
               error.message() +
                   "; it needs CAP_SYS_NICE or a real-time limit of at least that "
                   "priority (ulimit -r, LimitRTPRIO=)",
               os_error);
}

Result<Thread> Thread::create(Options options, std::function<void()> body) {
  // Shared: either of the two may be the last to look at it.
  auto start = std::make_shared<Start>();
  // A new thread has its creator's CPUs and policy.
  start->meets_creator = !options.cpus.empty() || options.sched.kind != SchedPolicy::Kind::kOther ||
                         sched_getscheduler(0) != SCHED_OTHER;
  start->options = std::move(options);
  start->body = std::move(body);

  auto holder = std::make_unique<std::shared_ptr<Start>>(start);
  Result<pthread_t> native = start_thread(start->options, holder.get());
  if (!native) return native.error();
  [[maybe_unused]] auto* taken_by_the_thread = holder.release();
  Thread thread(*native);
  if (!start->meets_creator) return thread;

  Start& shared = *start;
  MutexLock lock(shared.mutex);
  while (!shared.settled) shared.changed.wait(shared.mutex);
  if (!*shared.settled) return shared.settled->error().with_context("Thread", shared.options.name);
  return thread;
}

Thread& Thread::operator=(Thread&& other) noexcept {
  if (this != &other) {
    join();
    thread_ = std::exchange(other.thread_, pthread_t{});
  }
  return *this;
}

void Thread::join() {
  if (!joinable()) return;
  SKIFF_CHECK(pthread_join(thread_, nullptr) == 0);
  thread_ = pthread_t{};
}

}  // namespace skiff::loop
