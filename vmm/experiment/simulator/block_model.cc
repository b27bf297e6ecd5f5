// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/block_model.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "vmm/experiment/random.h"
#include "vmm/experiment/simulator/event_queue.h"
#include "vmm/experiment/simulator/host_costs.h"
#include "vmm/experiment/simulator/sim_thread.h"

namespace skiff::vmm {
namespace {

// Lines that the other side wrote last: available ring, descriptors, header; then used ring,
// status.
constexpr double kLinesOut = 3;
constexpr double kLinesBack = 2;
constexpr double kFarLine = 2;        // From another cache it takes that much longer.
constexpr size_t kTurnRequests = 64;  // As a queue's budget.

int64_t whole(double nanoseconds) { return static_cast<int64_t>(nanoseconds + 0.5); }

struct Request {
  uint32_t vcpu = 0;
  int64_t due_ns = 0;
};

class Model {
 public:
  Model(const ModelOptions& options, const HostCosts& costs)
      : options_(options), costs_(costs), random_(options.seed) {
    for (uint32_t i = 0; i < options.cores; ++i)
      cores_.push_back(std::make_unique<SimCore>(events_, whole(costs.switch_ns)));
    for (uint32_t i = 0; i < options.vcpus; ++i) add_vcpu(i);
    if (options.home == ModelOptions::Home::kIoThread)
      for (uint32_t i = 0; i < options.iothreads; ++i) add_iothread(i);
  }

  ModelResult run() {
    for (uint32_t i = 0; i < options_.vcpus; ++i) schedule_next(i, 0);
    events_.run_until(options_.duration_ns);
    result_.seconds = static_cast<double>(options_.duration_ns) / 1e9;
    const auto requests = static_cast<double>(std::max<uint64_t>(result_.completed, 1));
    for (const auto& thread : all_threads())
      result_.busiest = std::max(result_.busiest, static_cast<double>(thread->cpu_ns()) /
                                                      static_cast<double>(options_.duration_ns));
    // Of threads of its own all they do is Skiff's, going to sleep included.
    for (const auto& home : homes_) own_cpu_ns_ += static_cast<double>(home->thread->cpu_ns());
    result_.home_cpu_ns = own_cpu_ns_ / requests;
    result_.wakes_per_request = static_cast<double>(wakes_) / requests;
    return result_;
  }

 private:
  struct Vcpu {
    std::deque<Request> to_start;
    std::deque<Request> to_finish;  // In mode kVcpu: completions to reap; else interrupts.
    std::vector<Request> starting;
    std::vector<Request> finishing;
    std::unique_ptr<SimThread> thread;
  };
  struct Home {
    std::deque<Request> to_submit;
    std::deque<Request> to_complete;
    std::vector<Request> submitting;
    std::vector<Request> completing;
    std::unique_ptr<SimThread> thread;
  };

  bool inline_mode() const { return options_.home == ModelOptions::Home::kVcpu; }
  Home& home_of(uint32_t vcpu) { return *homes_[vcpu % homes_.size()]; }
  double line_ns() const { return costs_.line_ns * (options_.near ? 1 : kFarLine); }

  std::vector<SimThread*> all_threads() const {
    std::vector<SimThread*> threads;
    for (const auto& vcpu : vcpus_) threads.push_back(vcpu->thread.get());
    for (const auto& home : homes_) threads.push_back(home->thread.get());
    return threads;
  }

  SimCore& core_of(uint32_t thread) { return *cores_[thread % cores_.size()]; }

  void add_vcpu(uint32_t index) {
    auto vcpu = std::make_unique<Vcpu>();
    Vcpu& own = *vcpu;
    vcpu->thread = std::make_unique<SimThread>(
        events_, core_of(index),
        SimThread::Work{[this, &own](bool from_idle) { return begin_vcpu(own, from_idle); },
                        [this, &own] { return end_vcpu(own); },
                        options_.busy_guest ? 0 : whole(costs_.sleep_ns)});
    vcpus_.push_back(std::move(vcpu));
  }

  void add_iothread(uint32_t index) {
    auto home = std::make_unique<Home>();
    Home& own = *home;
    home->thread = std::make_unique<SimThread>(
        events_, core_of(options_.vcpus + index),
        SimThread::Work{[this, &own](bool from_idle) { return begin_home(own, from_idle); },
                        [this, &own] { return end_home(own); }, whole(costs_.sleep_ns)});
    homes_.push_back(std::move(home));
  }

  void schedule_next(uint32_t index, int64_t from_ns) {
    const int64_t due_ns = from_ns + whole(random_.exponential(1e9 / options_.rate));
    events_.at(due_ns, [this, index, due_ns] {
      Vcpu& vcpu = *vcpus_[index];
      ++result_.started;
      vcpu.to_start.push_back({index, due_ns});
      vcpu.thread->tell(whole(options_.busy_guest ? 0 : costs_.timer_ns));
      schedule_next(index, due_ns);
    });
  }

  // Moves up to a budget's worth.
  static void take(std::deque<Request>& from, std::vector<Request>& into) {
    into.clear();
    while (!from.empty() && into.size() < kTurnRequests) {
      into.push_back(from.front());
      from.pop_front();
    }
  }

  // Of Skiff's own for one way of a request: half of what a whole one costs.
  double half_request_ns() const {
    return (costs_.queue_ns + costs_.request_ns + (options_.latency_ns > 0 ? costs_.op_ns : 0)) / 2;
  }

  int64_t begin_vcpu(Vcpu& vcpu, bool from_idle) {
    take(vcpu.to_start, vcpu.starting);
    take(vcpu.to_finish, vcpu.finishing);
    const auto starts = static_cast<double>(vcpu.starting.size());
    const auto ends = static_cast<double>(vcpu.finishing.size());
    double cpu_ns = static_cast<double>(options_.guest_ns) * (starts + ends) / 2;
    if (from_idle && !options_.busy_guest) cpu_ns += costs_.turn_ns;
    if (inline_mode()) {
      double own_ns = (starts + ends) * half_request_ns();
      if (starts > 0) own_ns += costs_.exit_ns + (options_.latency_ns > 0 ? costs_.enter_ns : 0);
      if (ends > 0) own_ns += costs_.exit_ns;
      own_cpu_ns_ += own_ns;
      return whole(cpu_ns + own_ns);
    }
    if (starts > 0) cpu_ns += doorbell_ns(vcpu);
    if (ends > 0) cpu_ns += ends * kLinesBack * line_ns();
    if (ends > 0 && options_.busy_guest) cpu_ns += costs_.exit_ns;
    return whole(cpu_ns);
  }

  double doorbell_ns(const Vcpu& vcpu) {
    const SimThread& home = *home_of(vcpu.starting.front().vcpu).thread;
    if (!home.is_asleep()) return 0;
    const bool same = &home.core() == &vcpu.thread->core();
    return same ? std::min(costs_.doorbell_ns, costs_.enter_ns) : costs_.doorbell_ns;
  }

  bool end_vcpu(Vcpu& vcpu) {
    for (const Request& request : vcpu.finishing) {
      result_.latency.record(events_.now_ns() - request.due_ns);
      ++result_.completed;
    }
    for (const Request& request : vcpu.starting) {
      if (inline_mode()) {
        start_device(request);
        continue;
      }
      Home& home = home_of(request.vcpu);
      home.to_submit.push_back(request);
      tell(*home.thread, *vcpu.thread, costs_.wake_ns);
    }
    return !vcpu.to_start.empty() || !vcpu.to_finish.empty();
  }

  int64_t begin_home(Home& home, bool from_idle) {
    take(home.to_submit, home.submitting);
    take(home.to_complete, home.completing);
    const auto starts = static_cast<double>(home.submitting.size());
    const auto ends = static_cast<double>(home.completing.size());
    double cpu_ns = (starts + ends) * half_request_ns() + starts * kLinesOut * line_ns();
    if (from_idle)
      cpu_ns += costs_.turn_ns;
    else if (starts > 0 && options_.latency_ns > 0)
      cpu_ns += costs_.enter_ns;
    std::vector<uint32_t> told;
    for (const Request& request : home.completing)
      if (std::ranges::find(told, request.vcpu) == told.end()) told.push_back(request.vcpu);
    for (const uint32_t vcpu : told) {
      // To tell who waits on the same core is hardly more than the system call.
      const bool same = &vcpus_[vcpu]->thread->core() == &home.thread->core();
      cpu_ns += same ? costs_.enter_ns : costs_.notify_ns;
    }
    return whole(cpu_ns);
  }

  bool end_home(Home& home) {
    for (const Request& request : home.submitting) start_device(request);
    for (const Request& request : home.completing) {
      Vcpu& vcpu = *vcpus_[request.vcpu];
      vcpu.to_finish.push_back(request);
      tell(*vcpu.thread, *home.thread, options_.busy_guest ? 0 : costs_.wake_ns);
    }
    return !home.to_submit.empty() || !home.to_complete.empty();
  }

  void start_device(const Request& request) {
    if (options_.latency_ns == 0) return complete(request);
    events_.after(options_.latency_ns, [this, request] { complete(request); });
  }

  void complete(const Request& request) {
    if (inline_mode()) {
      Vcpu& vcpu = *vcpus_[request.vcpu];
      vcpu.to_finish.push_back(request);
      return tell(*vcpu.thread, options_.busy_guest ? 0 : costs_.wake_ns);
    }
    Home& home = home_of(request.vcpu);
    home.to_complete.push_back(request);
    tell(*home.thread, costs_.wake_ns);
  }

  // A thread of the same core is not waited for: it runs as soon as the one that tells it sleeps.
  void tell(SimThread& thread, const SimThread& teller, double wake_ns) {
    tell(thread, &thread.core() == &teller.core() ? 0 : wake_ns);
  }
  void tell(SimThread& thread, double wake_ns) {
    if (thread.is_asleep()) ++wakes_;
    thread.tell(whole(wake_ns));
  }

  const ModelOptions options_;
  const HostCosts costs_;
  Random random_;
  EventQueue events_;
  std::vector<std::unique_ptr<SimCore>> cores_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<std::unique_ptr<Home>> homes_;
  ModelResult result_;
  double own_cpu_ns_ = 0;
  uint64_t wakes_ = 0;
};

}  // namespace

ModelResult simulate_block(const ModelOptions& options, const HostCosts& costs) {
  return Model(options, costs).run();
}

}  // namespace skiff::vmm
