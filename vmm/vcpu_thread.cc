// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/vcpu_thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/thread_annotations.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/kvm_statistics.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/vcpu_alarm.h"

namespace skiff::vmm {

using loop::Error;
using loop::Result;

namespace {

int kick_signal() { return SIGRTMIN; }

// Turns of a busy loop before the guest gets so long a slice.
constexpr uint32_t kTurnsMax = 64;
constexpr int64_t kBusyEntryNs = 100'000;

// The signal's only purpose is to make KVM_RUN return: the handler does nothing but for alarms, and
// there is no SA_RESTART.
void install_kick_handler() {
  struct sigaction action{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) { VcpuAlarm::on_signal(*info); };
  ::sigemptyset(&action.sa_mask);
  SKIFF_CHECK(::sigaction(kick_signal(), &action, nullptr) == 0);
}

void count(std::atomic<uint64_t>& counter) {  // Written by one thread.
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

// What the main loop asks for, in order.
struct VcpuThread::Request {
  enum class Kind : uint8_t { kResume, kPause, kCall, kStop };
  Kind kind = Kind::kResume;
  std::function<void()> done;
  std::function<Result<void>(Vcpu&)> work;
  std::function<void(Result<void>)> work_done;
};

struct VcpuThread::Impl {
  Impl(const VcpuSurroundings& surroundings_in, Options options_in)
      : surroundings(surroundings_in), options(std::move(options_in)) {}

  // On the vCPU's thread.
  void thread_main();
  Result<void> set_up();
  Result<void> make_loop();
  void become_ready(Result<void> result);
  bool is_in_guest() const { return may_run && failed_start != vcpu->starts(); }
  std::optional<Request> next_request();
  bool serve_requests();
  void turn_until_idle();
  bool prepare_entry();
  void run_guest();
  void note_cpu();
  void dispatch_pio(const VcpuExit& exit) const;
  void dispatch(const VcpuExit& exit);
  void fail(const VcpuExit& exit, const std::string& reason);

  // On any.
  void send(Request request);
  void leave();
  bool is_leaving();
  void answer_without_vcpu(Request request) const;
  void post(std::function<void()> callback) const {
    if (callback) surroundings.main_loop.post(std::move(callback));
  }

  const VcpuSurroundings surroundings;
  Options options;
  Counters counters{};
  VcpuLoopCounters loop_counters;
  std::atomic<uint32_t> host_cpu{0};

  // The vCPU thread's, until it is joined.
  std::unique_ptr<Vcpu> vcpu;
  bool may_run = false;
  std::optional<uint32_t> failed_start;  // Vcpu::starts() when it failed: stays out until the next.
  std::unique_ptr<VcpuAlarm> alarm;
  std::unique_ptr<loop::EventLoop> loop;  // Goes on its own thread, as does what wakes it.
  std::unique_ptr<loop::BottomHalf> on_call;
  bool called = false;       // There may be requests. Only with a loop.
  bool interrupted = false;  // KVM_RUN's last end; otherwise an access may be incomplete.
  bool interrupted_unaccounted = false;

  loop::UniqueFd statistics;  // Set before it is ready, fixed afterwards.

  loop::Mutex mutex;
  loop::ConditionVariable changed;
  std::deque<Request> requests SKIFF_GUARDED_BY(mutex);
  std::optional<Result<void>> ready SKIFF_GUARDED_BY(mutex);
  Vcpu* kickable SKIFF_GUARDED_BY(mutex) = nullptr;
  loop::BottomHalf* callable SKIFF_GUARDED_BY(mutex) = nullptr;  // Instead, with a loop.
  bool ended SKIFF_GUARDED_BY(mutex) = false;
  bool leaving SKIFF_GUARDED_BY(mutex) = false;

  loop::Thread thread;
};

void VcpuThread::Impl::thread_main() {
  Result<void> result = set_up();
  const bool good = result.has_value();
  become_ready(std::move(result));
  while (good && serve_requests()) run_guest();

  std::deque<Request> left;
  {
    const loop::MutexLock lock(mutex);
    ended = true;
    kickable = nullptr;
    left.swap(requests);
  }
  for (Request& request : left) answer_without_vcpu(std::move(request));
  if (!loop) return;
  while (!is_leaving()) loop->run_once(loop::EventLoop::Wait::kUntilEvent);
  on_call.reset();
  loop.reset();
}

Result<void> VcpuThread::Impl::set_up() {
  auto created = Vcpu::create(surroundings.vm, options.apic_id);
  if (!created) return created.error();
  vcpu = *std::move(created);
  statistics = vcpu->open_statistics();
  note_cpu();
  if (options.with_loop) SKIFF_RETURN_IF_ERROR(make_loop());
  return options.set_up ? options.set_up(*vcpu) : Result<void>();
}

Result<void> VcpuThread::Impl::make_loop() {
  auto made = loop::EventLoop::create({
      .backend = loop::EventLoop::Backend::kIoUring,
      .task_work = loop::EventLoop::TaskWork::kInterrupt,
      .kick =
          [this, self = ::pthread_self()] {
            vcpu->request_exit();
            // After the exit is requested: a vCPU that the signal misses finds the request instead.
            ::pthread_kill(self, kick_signal());
          },
      .kick_at = [this](int64_t at_ns) { alarm->set(at_ns); },
  });
  if (!made) {
    static std::atomic<bool> said{false};
    if (!said.exchange(true, std::memory_order_relaxed))
      SKIFF_LOG(kWarn, "vCPUs cannot submit I/O themselves: {}", made.error().message());
    return {};
  }
  auto made_alarm = VcpuAlarm::create(*vcpu, kick_signal());
  if (!made_alarm) return made_alarm.error();
  alarm = *std::move(made_alarm);
  loop = *std::move(made);
  on_call = std::make_unique<loop::BottomHalf>(*loop, loop::Priority::kRealTime,
                                               [this] { called = true; });
  loop->run_once(loop::EventLoop::Wait::kNo);  // From now on it is this thread's.
  return {};
}

void VcpuThread::Impl::become_ready(Result<void> result) {
  const loop::MutexLock lock(mutex);
  if (result) kickable = vcpu.get();
  callable = on_call.get();
  ready = std::move(result);
  changed.notify_all();
}

// Waits for one while the vCPU is out of the guest; otherwise nothing when there is none. Without a
// loop the request to exit is taken back only here, under the lock: it stands exactly while
// requests wait.
std::optional<VcpuThread::Request> VcpuThread::Impl::next_request() {
  while (true) {
    {
      const loop::MutexLock lock(mutex);
      while (requests.empty() && !is_in_guest() && !loop) changed.wait(mutex);
      if (!requests.empty()) {
        Request request = std::move(requests.front());
        requests.pop_front();
        return request;
      }
      // Who sends one from here on says so after this.
      called = false;
      if (!loop) vcpu->clear_exit_request();
    }
    if (is_in_guest()) return std::nullopt;
    loop->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
}

// Called when KVM_RUN was left with nothing to complete. Returns when the guest should be entered,
// or false to end.
bool VcpuThread::Impl::serve_requests() {
  while (std::optional<Request> request = next_request()) {
    switch (request->kind) {
      case Request::Kind::kResume:
        may_run = true;
        break;
      case Request::Kind::kPause:
        may_run = false;
        post(std::move(request->done));
        break;
      case Request::Kind::kCall: {
        post([result = request->work(*vcpu), done = std::move(request->work_done)] {
          done(result);
        });
        break;
      }
      case Request::Kind::kStop:
        post(std::move(request->done));
        return false;
    }
  }
  return true;
}

// Right before KVM_RUN. What other threads do after the last look at the loop ends KVM_RUN, or does
// not let it begin. What the ring delivers on the way there does neither: it waits for the next
// exit or the loop's guard, an alarm.
void VcpuThread::Impl::turn_until_idle() {
  for (uint32_t turns = 0;; ++turns) {
    if (turns == kTurnsMax) {
      // A loop that never rests must not keep the guest's processor from its other work.
      alarm->set(loop->now_ns() + kBusyEntryNs);
      vcpu->clear_exit_request();
      return;
    }
    vcpu->clear_exit_request();
    const bool rang = alarm->take_ring();
    if (!rang && loop->is_idle()) return;
    const uint64_t operations = loop->counters().operations;
    loop->run_once(loop::EventLoop::Wait::kNo);
    if (!std::exchange(interrupted_unaccounted, false)) continue;
    const bool completed = loop->counters().operations != operations;
    if (rang) count(loop_counters.alarms);
    if (rang && completed) count(loop_counters.missed);
    if (!rang && completed) count(loop_counters.completions);
  }
}

// False if there may be requests, and nothing needs the guest to be entered before.
bool VcpuThread::Impl::prepare_entry() {
  turn_until_idle();
  // KVM_RUN with the exit requested completes the access that was just served, and comes back.
  if (called && !interrupted) vcpu->request_exit();
  if (called && interrupted) return false;
  if (options.before_entry) options.before_entry(*loop);
  return true;
}

void VcpuThread::Impl::note_cpu() {
  // No system call where the C library has registered restartable sequences.
  const auto cpu = static_cast<uint32_t>(::sched_getcpu());
  if (cpu != host_cpu.load(std::memory_order_relaxed))
    host_cpu.store(cpu, std::memory_order_relaxed);
}

// Until there may be something to do outside. A request does not end it at once: KVM_RUN is entered
// once more with the exit requested, which completes the access that was just served and comes back
// interrupted.
void VcpuThread::Impl::run_guest() {
  interrupted = true;  // Nothing is to be completed.
  while (is_in_guest()) {
    if (loop && !prepare_entry()) return;
    const Result<VcpuExit> exit = vcpu->run();
    note_cpu();
    if (!exit) {
      fail(VcpuExit{}, exit.error().message());
      return;
    }
    count(counters[static_cast<size_t>(exit->kind)]);
    interrupted = exit->kind == VcpuExitKind::kInterrupted;
    if (!interrupted) {
      dispatch(*exit);
      continue;
    }
    // With a loop an interruption is most often the loop's.
    if (!loop) return;
    interrupted_unaccounted = true;
  }
}

// A string instruction comes as several accesses to one port.
void VcpuThread::Impl::dispatch_pio(const VcpuExit& exit) const {
  for (uint32_t i = 0; i < exit.count; ++i) {
    const auto data = exit.data.subspan(size_t{i} * exit.size_bytes, exit.size_bytes);
    if (exit.is_write)
      surroundings.pio.write(exit.address, data);
    else
      surroundings.pio.read(exit.address, data);
  }
}

void VcpuThread::Impl::dispatch(const VcpuExit& exit) {
  switch (exit.kind) {
    case VcpuExitKind::kPio:
      dispatch_pio(exit);
      return;
    case VcpuExitKind::kMmio:
      if (exit.is_write)
        surroundings.mmio.write(exit.address, exit.data);
      else
        surroundings.mmio.read(exit.address, exit.data);
      return;
    case VcpuExitKind::kIrqWindow:
      return;
    default:
      fail(exit, "");
      return;
  }
}

void VcpuThread::Impl::fail(const VcpuExit& exit, const std::string& reason) {
  failed_start = vcpu->starts();
  VcpuFailure failure{.index = options.index,
                      .guest_crashed = exit.kind == VcpuExitKind::kShutdown,
                      .emulation_failed = exit.emulation_failed};
  failure.text = fmt::format("vCPU {}: {}{}{}", options.index, reason, reason.empty() ? "" : ": ",
                             vcpu->describe(exit));
  post([failed = surroundings.failed, failure = std::move(failure)] {
    if (failed) failed(failure);
  });
}

void VcpuThread::Impl::send(Request request) {
  {
    const loop::MutexLock lock(mutex);
    if (!ended) {
      requests.push_back(std::move(request));
      changed.notify_all();
      if (callable != nullptr) {
        callable->schedule();
      } else if (kickable != nullptr) {
        kickable->request_exit();
        // After the exit is requested: a vCPU that the signal misses finds the request instead.
        ::pthread_kill(thread.native(), kick_signal());
      }
      return;
    }
  }
  answer_without_vcpu(std::move(request));
}

void VcpuThread::Impl::leave() {
  const loop::MutexLock lock(mutex);
  leaving = true;
  if (callable != nullptr) callable->schedule();
}

bool VcpuThread::Impl::is_leaving() {
  const loop::MutexLock lock(mutex);
  return leaving;
}

void VcpuThread::Impl::answer_without_vcpu(Request request) const {
  post(std::move(request.done));
  if (request.work_done)
    post([done = std::move(request.work_done)] {
      done(Error(loop::ErrorKind::kCancelled, "The vCPU has ended"));
    });
}

VcpuThread::VcpuThread(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<VcpuThread>> VcpuThread::create(const VcpuSurroundings& surroundings,
                                                       Options options) {
  install_kick_handler();
  auto impl = std::make_unique<Impl>(surroundings, std::move(options));
  auto thread = loop::Thread::create({.name = fmt::format("vcpu{}", impl->options.index),
                                      .cpus = impl->options.cpus,
                                      .sched = impl->options.sched,
                                      .unblocked_signals = {kick_signal()}},
                                     [state = impl.get()] { state->thread_main(); });
  if (!thread) return thread.error();
  {
    const loop::MutexLock lock(impl->mutex);
    impl->thread = *std::move(thread);
  }
  return std::unique_ptr<VcpuThread>(new VcpuThread(std::move(impl)));
}

VcpuThread::~VcpuThread() {
  impl_->send({.kind = Request::Kind::kStop});
  impl_->leave();
  impl_->thread.join();
}

Result<void> VcpuThread::wait_ready() {
  Impl& impl = *impl_;
  const loop::MutexLock lock(impl.mutex);
  while (!impl.ready) impl.changed.wait(impl.mutex);
  return *impl.ready;
}

void VcpuThread::resume() { impl_->send({.kind = Request::Kind::kResume}); }

void VcpuThread::pause(std::function<void()> paused) {
  impl_->send({.kind = Request::Kind::kPause, .done = std::move(paused)});
}

void VcpuThread::call(std::function<Result<void>(Vcpu&)> work,
                      std::function<void(Result<void>)> done) {
  impl_->send(
      {.kind = Request::Kind::kCall, .work = std::move(work), .work_done = std::move(done)});
}

void VcpuThread::stop(std::function<void()> ended) {
  impl_->send({.kind = Request::Kind::kStop, .done = std::move(ended)});
}

loop::EventLoop* VcpuThread::loop() { return impl_->loop.get(); }

uint32_t VcpuThread::host_cpu() const { return impl_->host_cpu.load(std::memory_order_relaxed); }

pthread_t VcpuThread::native() const { return impl_->thread.native(); }

const VcpuThread::Counters& VcpuThread::counters() const { return impl_->counters; }

const VcpuLoopCounters& VcpuThread::loop_counters() const { return impl_->loop_counters; }

Result<std::vector<KvmStatistic>> VcpuThread::kernel_statistics() const {
  if (!impl_->statistics)
    return Error(loop::ErrorKind::kUnsupported, "This kernel's KVM has no statistics descriptor");
  return read_kvm_statistics(impl_->statistics.get());
}

}  // namespace skiff::vmm
