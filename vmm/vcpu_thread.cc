// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/vcpu_thread.h"

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
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/thread_annotations.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/kvm_statistics.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

using loop::Error;
using loop::Result;

namespace {

int kick_signal() { return SIGRTMIN; }

// The signal's only purpose is to make KVM_RUN return: the handler does nothing, and there is no
// SA_RESTART.
void install_kick_handler() {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigemptyset(&action.sa_mask);
  SKIFF_CHECK(::sigaction(kick_signal(), &action, nullptr) == 0);
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
  void become_ready(Result<void> result);
  bool is_in_guest() const { return may_run && failed_start != vcpu->starts(); }
  std::optional<Request> next_request();
  bool serve_requests();
  void run_guest();
  void dispatch_pio(const VcpuExit& exit) const;
  void dispatch(const VcpuExit& exit);
  void fail(const VcpuExit& exit, const std::string& reason);

  // On any.
  void send(Request request);
  void answer_without_vcpu(Request request) const;
  void post(std::function<void()> callback) const {
    if (callback) surroundings.main_loop.post(std::move(callback));
  }

  const VcpuSurroundings surroundings;
  Options options;
  Counters counters{};

  // The vCPU thread's, until it is joined.
  std::unique_ptr<Vcpu> vcpu;
  bool may_run = false;
  std::optional<uint32_t> failed_start;  // Vcpu::starts() when it failed: stays out until the next.

  loop::UniqueFd statistics;  // Set before it is ready, fixed afterwards.

  loop::Mutex mutex;
  loop::ConditionVariable changed;
  std::deque<Request> requests SKIFF_GUARDED_BY(mutex);
  std::optional<Result<void>> ready SKIFF_GUARDED_BY(mutex);
  Vcpu* kickable SKIFF_GUARDED_BY(mutex) = nullptr;
  bool ended SKIFF_GUARDED_BY(mutex) = false;

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
}

Result<void> VcpuThread::Impl::set_up() {
  auto created = Vcpu::create(surroundings.vm, options.apic_id);
  if (!created) return created.error();
  vcpu = *std::move(created);
  statistics = vcpu->open_statistics();
  return options.set_up ? options.set_up(*vcpu) : Result<void>();
}

void VcpuThread::Impl::become_ready(Result<void> result) {
  const loop::MutexLock lock(mutex);
  if (result) kickable = vcpu.get();
  ready = std::move(result);
  changed.notify_all();
}

// Waits for one while the vCPU is out of the guest; otherwise nothing when there is none. The
// request to exit is taken back only here, under the lock: it stands exactly while requests wait.
std::optional<VcpuThread::Request> VcpuThread::Impl::next_request() {
  const loop::MutexLock lock(mutex);
  while (requests.empty() && !is_in_guest()) changed.wait(mutex);
  if (requests.empty()) {
    vcpu->clear_exit_request();
    return std::nullopt;
  }
  Request request = std::move(requests.front());
  requests.pop_front();
  return request;
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

// Until there may be something to do outside. A request does not end it at once: KVM_RUN is entered
// once more with the exit requested, which completes the access that was just served and comes back
// interrupted.
void VcpuThread::Impl::run_guest() {
  while (is_in_guest()) {
    const Result<VcpuExit> exit = vcpu->run();
    if (!exit) {
      fail(VcpuExit{}, exit.error().message());
      return;
    }
    counters[static_cast<size_t>(exit->kind)].fetch_add(1, std::memory_order_relaxed);
    if (exit->kind == VcpuExitKind::kInterrupted) return;
    dispatch(*exit);
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
      if (kickable != nullptr) {
        kickable->request_exit();
        // After the exit is requested: a vCPU that the signal misses finds the request instead.
        ::pthread_kill(thread.native(), kick_signal());
      }
      return;
    }
  }
  answer_without_vcpu(std::move(request));
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

const VcpuThread::Counters& VcpuThread::counters() const { return impl_->counters; }

Result<std::vector<KvmStatistic>> VcpuThread::kernel_statistics() const {
  if (!impl_->statistics)
    return Error(loop::ErrorKind::kUnsupported, "This kernel's KVM has no statistics descriptor");
  return read_kvm_statistics(impl_->statistics.get());
}

}  // namespace skiff::vmm
