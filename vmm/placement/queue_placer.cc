// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/queue_placer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/core/msi.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "vmm/config/disk_config.h"
#include "vmm/placement/iothread_probe.h"
#include "vmm/placement/mode_choice.h"
#include "vmm/placement/msi_target.h"
#include "vmm/placement/steering.h"

namespace skiff::vmm {
namespace {

using devices::QueueHome;
using devices::QueueIndex;
using devices::SubmitMode;

constexpr uint32_t kQuietPeriods = 5;  // Without a request: then it sleeps.
constexpr double kMostlyForeign = 0.5;
constexpr int kRingerPeriods = 3;
constexpr int64_t kMinuteNs = 60'000'000'000;
constexpr size_t kMovesRememberedMax = 1024;

SubmitMode first_mode(DiskSubmit submit, bool has_thread) {
  switch (submit) {
    case DiskSubmit::kVcpu:
      return SubmitMode::kVcpu;
    case DiskSubmit::kPoll:
      return SubmitMode::kPoll;
    case DiskSubmit::kAuto:
      // An IOThread serves until it is known what waking one costs here.
      if (!has_thread) return SubmitMode::kVcpu;
      break;
    case DiskSubmit::kIothread:
      break;
  }
  return SubmitMode::kIoThread;
}

}  // namespace

struct QueuePlacer::Queue {
  Queue(const DiskPlacement& placement, size_t index)
      : chooser(first_mode(placement.submit, !placement.threads.empty())),
        thread(placement.threads.empty() ? 0 : placement.threads[index]) {}

  ModeChooser chooser;  // Asked only with submit=auto.
  size_t thread;        // Its IOThread, whether it is there now or not.
  std::optional<MsiTarget> target;
  QueueHome home;
  std::optional<QueueHome> refused;  // The image gave no channel there.
  bool is_moving = false;
  std::string_view vcpu_why;
  std::string thread_why = "as at the start";
  QueuePulse last;
  // The vCPU that rings instead of the home; a candidate until it did so for some periods.
  std::optional<uint32_t> ringer;
  std::optional<uint32_t> ringer_candidate;
  int ringer_periods = 0;
  double requests_per_s = 0;
  double batch = 1;
  double depth = 1;
  std::deque<int64_t> moves_ns;  // Of the last minute.
  QueueWhere counted;            // Only its counters.
};

struct QueuePlacer::Disk {
  PlacedDisk* disk = nullptr;
  DiskPlacement placement;
  std::vector<Queue> queues;
  bool is_removed = false;
};

struct QueuePlacer::Period {
  double seconds = 0;
  uint64_t requests = 0;
};

QueuePlacer::QueuePlacer(Options options)
    : options_(std::move(options)),
      home_(options_.main_loop),
      self_(std::make_shared<QueuePlacer*>(this)),
      balancer_(options_.topology),
      idle_cores_(options_.usable_cores),
      timer_(options_.main_loop, loop::Priority::kService, [this] { on_period(); }) {}

QueuePlacer::~QueuePlacer() = default;

size_t QueuePlacer::add_iothread(Iothread thread) {
  home_.assert_here();
  probes_.push_back(std::make_shared<IothreadProbe>(options_.main_loop, *thread.loop));
  polling_.push_back(thread.polls_always);
  iothreads_.push_back(std::move(thread));
  return iothreads_.size() - 1;
}

void QueuePlacer::set_vcpus(std::vector<VcpuContext> vcpus) {
  home_.assert_here();
  vcpus_ = std::move(vcpus);
  for (const auto& disk : disks_)
    for (size_t i = 0; i < disk->queues.size(); ++i) settle(disk, i);
}

bool QueuePlacer::vcpus_can_submit() const {
  return !vcpus_.empty() &&
         std::ranges::all_of(vcpus_, [](const VcpuContext& vcpu) { return vcpu.loop != nullptr; });
}

std::vector<QueueHome> QueuePlacer::first_homes(const DiskPlacement& placement,
                                                uint16_t queues) const {
  Disk disk{.placement = placement};
  std::vector<QueueHome> homes;
  for (uint16_t i = 0; i < queues; ++i) {
    Queue queue(placement, i);
    homes.push_back(wanted_home(disk, queue));
    // vCPUs have no loops yet, or none that has turned: the first move goes there.
    if (homes.back().mode == SubmitMode::kVcpu) homes.back() = {&options_.main_loop};
  }
  return homes;
}

void QueuePlacer::add(PlacedDisk& disk, DiskPlacement placement) {
  home_.assert_here();
  auto added = std::make_shared<Disk>();
  added->disk = &disk;
  const auto homes = first_homes(placement, disk.queue_count());
  for (size_t i = 0; i < homes.size(); ++i) {
    added->queues.emplace_back(placement, i).home = homes[i];
    added->queues.back().last = disk.pulse(static_cast<QueueIndex>(i));
  }
  added->placement = std::move(placement);
  disks_.push_back(added);
  update_polling();
  for (size_t i = 0; i < homes.size(); ++i) settle(added, i);
  disk.tell_next_request();
}

void QueuePlacer::remove(PlacedDisk& disk) {
  home_.assert_here();
  std::erase_if(disks_, [&disk](const auto& known) {
    if (known->disk != &disk) return false;
    known->is_removed = true;
    return true;
  });
  report_if_settled();
}

void QueuePlacer::change(const PlacedDisk& disk, DiskPlacement placement) {
  home_.assert_here();
  const auto found =
      std::ranges::find_if(disks_, [&disk](const auto& known) { return known->disk == &disk; });
  if (found == disks_.end()) return;
  Disk& changed = **found;
  changed.placement = std::move(placement);
  const bool has_thread = !changed.placement.threads.empty();
  for (size_t i = 0; i < changed.queues.size(); ++i) {
    Queue& queue = changed.queues[i];
    // A choice begins where the queue is.
    queue.chooser = ModeChooser(changed.placement.submit == DiskSubmit::kAuto
                                    ? queue.home.mode
                                    : first_mode(changed.placement.submit, has_thread));
    if (has_thread) queue.thread = changed.placement.threads[i];
    queue.refused.reset();
    settle(*found, i);
  }
}

// vCPU mode where it is wished and possible, else the queue's IOThread, else the main loop.
QueueHome QueuePlacer::wanted_home(const Disk& disk, Queue& queue) const {
  const SubmitMode mode = queue.chooser.mode();
  if (mode == SubmitMode::kVcpu && vcpus_can_submit()) {
    const auto index = static_cast<uint16_t>(disk.queues.empty() ? 0 : &queue - disk.queues.data());
    const VcpuChoice choice = choose_vcpu({.steer = disk.placement.steer,
                                           .queue = index,
                                           .vcpus = static_cast<uint32_t>(vcpus_.size()),
                                           .target = queue.target,
                                           .submitter = queue.ringer});
    queue.vcpu_why = choice.why;
    return {vcpus_[choice.vcpu].loop, SubmitMode::kVcpu};
  }
  if (iothreads_.empty()) return {&options_.main_loop, SubmitMode::kIoThread};
  loop::EventLoop* loop = iothreads_[std::min(queue.thread, iothreads_.size() - 1)].loop;
  return {loop, mode == SubmitMode::kPoll ? SubmitMode::kPoll : SubmitMode::kIoThread};
}

std::optional<uint32_t> QueuePlacer::vcpu_of(const loop::EventLoop* loop) const {
  for (size_t i = 0; loop != nullptr && i < vcpus_.size(); ++i)
    if (vcpus_[i].loop == loop) return static_cast<uint32_t>(i);
  return std::nullopt;
}

std::optional<uint32_t> QueuePlacer::single_target(const Queue& queue) const {
  const bool is_single = queue.target && queue.target->vcpus.size() == 1;
  return is_single ? std::optional(queue.target->vcpus.front()) : std::nullopt;
}

std::optional<uint32_t> QueuePlacer::target_cpu(const Queue& queue) const {
  const auto vcpu = single_target(queue);
  if (!vcpu || *vcpu >= vcpus_.size() || !vcpus_[*vcpu].host_cpu) return std::nullopt;
  return vcpus_[*vcpu].host_cpu();
}

// Brings a queue to where it should be, one move at a time.
void QueuePlacer::settle(const std::shared_ptr<Disk>& disk, size_t index) {
  Queue& queue = disk->queues[index];
  if (is_held_ || queue.is_moving || disk->is_removed) return;
  const QueueHome wanted = wanted_home(*disk, queue);
  if (wanted == queue.home || wanted == queue.refused) return;
  SKIFF_LOG(kDebug, "{} queue {} goes to {}, mode {}", disk->disk->name(), index, home_name(wanted),
            devices::submit_mode_name(wanted.mode));
  if (wanted.loop != queue.home.loop) {
    ++queue.counted.moves;
    queue.moves_ns.push_back(options_.main_loop.now_ns());
    if (queue.moves_ns.size() > kMovesRememberedMax) queue.moves_ns.pop_front();
  }
  queue.home = wanted;
  queue.is_moving = true;
  update_polling();
  disk->disk->move_queue(
      static_cast<QueueIndex>(index), wanted,
      [&main_loop = options_.main_loop, weak = std::weak_ptr(self_), disk, index] {
        main_loop.post([weak, disk, index] {
          if (const auto self = weak.lock()) (*self)->on_moved(disk, index);
        });
      });
}

void QueuePlacer::on_moved(const std::shared_ptr<Disk>& disk, size_t index) {
  Queue& queue = disk->queues[index];
  queue.is_moving = false;
  if (!disk->is_removed) {
    const QueueHome actual = disk->disk->home(static_cast<QueueIndex>(index));
    if (actual != queue.home) queue.refused = queue.home;
    queue.home = actual;
    update_polling();
  }
  settle(disk, index);  // What was decided meanwhile.
  report_if_settled();
}

void QueuePlacer::interrupt_target_changed(PlacedDisk& disk, QueueIndex queue,
                                           std::optional<devices::MsiMessage> message) {
  options_.main_loop.post([weak = std::weak_ptr(self_), &disk, queue, message] {
    const auto self = weak.lock();
    if (!self) return;
    QueuePlacer& placer = **self;
    const auto found = std::ranges::find_if(
        placer.disks_, [&disk](const auto& known) { return known->disk == &disk; });
    if (found == placer.disks_.end() || queue >= (*found)->queues.size()) return;
    // Guests mask a vector for as long as they change it: the old target is the best guess.
    if (!message) return;
    (*found)->queues[queue].target = decode_msi_target(*message, placer.options_.apic_ids);
    placer.settle(*found, queue);
  });
}

void QueuePlacer::wake() {
  options_.main_loop.post([weak = std::weak_ptr(self_)] {
    const auto self = weak.lock();
    if (!self || (*self)->is_awake()) return;
    QueuePlacer& placer = **self;
    placer.quiet_periods_ = 0;
    placer.last_period_ns_ = placer.options_.main_loop.now_ns();
    for (const auto& probe : placer.probes_) probe->calibrate_once();
    placer.timer_.arm_after(kPeriodNs);
  });
}

void QueuePlacer::hold(std::function<void()> settled) {
  home_.assert_here();
  is_held_ = true;
  settled_ = std::move(settled);
  report_if_settled();
}

void QueuePlacer::release() {
  home_.assert_here();
  is_held_ = false;
  for (const auto& disk : disks_)
    for (size_t i = 0; i < disk->queues.size(); ++i) settle(disk, i);
}

void QueuePlacer::leave_vcpus() {
  home_.assert_here();
  for (const auto& disk : disks_) {
    for (size_t i = 0; i < disk->queues.size(); ++i) {
      disk->queues[i].home = {&options_.main_loop, SubmitMode::kIoThread};
      disk->disk->move_queue(static_cast<QueueIndex>(i), disk->queues[i].home, [] {});
    }
  }
  vcpus_.clear();
}

void QueuePlacer::report_if_settled() {
  if (!settled_) return;
  for (const auto& disk : disks_)
    for (const Queue& queue : disk->queues)
      if (queue.is_moving) return;
  options_.main_loop.post(std::exchange(settled_, nullptr));
}

void QueuePlacer::on_period() {
  const int64_t now_ns = options_.main_loop.now_ns();
  Period period;
  period.seconds = static_cast<double>(now_ns - std::exchange(last_period_ns_, now_ns)) / 1e9;
  quiet_periods_ = measure(period) ? 0 : quiet_periods_ + 1;
  if (quiet_periods_ >= kQuietPeriods) return fall_asleep();
  if (const auto idle = options_.idle_cores ? options_.idle_cores() : std::nullopt)
    idle_cores_ = *idle;
  for (const auto& probe : probes_) probe->ask();
  for (const auto& disk : disks_) {
    for (size_t i = 0; i < disk->queues.size(); ++i) {
      if (disk->placement.submit == DiskSubmit::kAuto) choose_mode(disk, i, period);
      settle(disk, i);  // Who rings may be another one.
    }
  }
  balance();
  timer_.arm_after(kPeriodNs);
}

// What every queue did in this period; false when that is nothing.
bool QueuePlacer::measure(Period& period) {
  for (const auto& disk : disks_) {
    for (size_t i = 0; i < disk->queues.size(); ++i) {
      Queue& queue = disk->queues[i];
      const QueuePulse now = disk->disk->pulse(static_cast<QueueIndex>(i));
      const uint64_t requests = now.requests - queue.last.requests;
      const uint64_t batches = now.batches - queue.last.batches;
      const uint64_t kicks = now.kicks - queue.last.kicks;
      const uint64_t foreign = now.foreign_kicks - queue.last.foreign_kicks;
      const double seconds = std::max(period.seconds, 1e-3);
      queue.requests_per_s = static_cast<double>(requests) / seconds;
      if (batches > 0) queue.batch = static_cast<double>(requests) / static_cast<double>(batches);
      queue.depth = (now.busy_ns - queue.last.busy_ns) / (seconds * 1e9);
      const double foreign_part =
          kicks > 0 ? static_cast<double>(foreign) / static_cast<double>(kicks) : 0;
      count_completions(queue, requests, foreign_part);
      note_ringer(queue,
                  foreign_part > kMostlyForeign ? vcpu_of_thread(now.last_foreign) : std::nullopt);
      queue.last = now;
      period.requests += requests;
    }
  }
  return period.requests > 0;
}

void QueuePlacer::note_ringer(Queue& queue, std::optional<uint32_t> vcpu) {
  if (vcpu != queue.ringer_candidate) queue.ringer_periods = 0;
  queue.ringer_candidate = vcpu;
  if (vcpu && ++queue.ringer_periods >= kRingerPeriods) queue.ringer = vcpu;
}

std::optional<uint32_t> QueuePlacer::vcpu_of_thread(uint64_t thread) const {
  for (size_t i = 0; thread != 0 && i < vcpus_.size(); ++i)
    if (vcpus_[i].thread == thread) return static_cast<uint32_t>(i);
  return std::nullopt;
}

// As they were while the queue was where it is: a period in which it moved is told of its end.
void QueuePlacer::count_completions(Queue& queue, uint64_t requests, double foreign) const {
  QueueWhere& counted = queue.counted;
  const auto target = single_target(queue);
  if (queue.home.mode == SubmitMode::kVcpu) {
    const auto by_ringer =
        static_cast<uint64_t>(static_cast<double>(requests) * (1 - std::clamp(foreign, 0.0, 1.0)));
    counted.on_submitter += by_ringer;
    (vcpu_of(queue.home.loop) == target ? counted.on_target : counted.elsewhere) +=
        requests - by_ringer;
    return;
  }
  const auto wanted_cpu = target_cpu(queue);
  const bool is_near =
      wanted_cpu && queue.thread < probes_.size() && probes_[queue.thread]->cpu() == wanted_cpu;
  (is_near ? counted.on_target : counted.elsewhere) += requests;
}

void QueuePlacer::choose_mode(const std::shared_ptr<Disk>& disk, size_t index,
                              const Period& period) {
  Queue& queue = disk->queues[index];
  if (queue.is_moving || period.seconds <= 0) return;
  ModeFacts facts;
  const bool has_thread = !iothreads_.empty() && !disk->placement.threads.empty();
  facts.possible = {has_thread, vcpus_can_submit(), has_thread};
  if (has_thread) {
    const size_t thread = std::min(queue.thread, probes_.size() - 1);
    facts.wake_ns = static_cast<double>(probes_[thread]->wake_ns());
    facts.thread_load = probes_[thread]->load();
    facts.poll_max_ns = static_cast<double>(iothreads_[thread].poll_max_ns);
    // Nothing to compare with yet.
    if (facts.wake_ns <= 0 || exit_ns_ <= 0) return;
  }
  facts.exit_ns = exit_ns_;
  facts.idle_cores = idle_cores_;
  facts.usable_cores = options_.usable_cores;
  facts.requests_per_s = queue.requests_per_s;
  facts.batch = queue.batch;
  facts.depth = queue.depth;
  if (queue.chooser.step(last_period_ns_, facts))
    SKIFF_LOG(kDebug, "{} queue {}: {} ({})", disk->disk->name(), index,
              devices::submit_mode_name(queue.chooser.mode()), queue.chooser.why());
}

void QueuePlacer::balance() {
  if (iothreads_.size() < 2) return;
  std::vector<BalancedThread> threads;
  for (const auto& probe : probes_) threads.push_back({probe->cpu(), probe->load()});
  std::vector<BalancedQueue> queues;
  std::vector<std::pair<std::shared_ptr<Disk>, size_t>> owners;
  for (const auto& disk : disks_) {
    for (size_t i = 0; i < disk->queues.size(); ++i) {
      const Queue& queue = disk->queues[i];
      // The others keep their place in the list, and nowhere to go.
      const bool may_move =
          disk->placement.steer && queue.home.mode != SubmitMode::kVcpu && !queue.is_moving;
      BalancedQueue balanced{.thread = queue.thread};
      if (may_move) balanced.allowed = disk->placement.allowed_threads;
      balanced.target_cpu = target_cpu(queue);
      balanced.requests_per_s = queue.requests_per_s;
      queues.push_back(std::move(balanced));
      owners.emplace_back(disk, i);
    }
  }
  const auto move = balancer_.step(last_period_ns_, threads, queues);
  if (!move) return;
  const auto& [disk, index] = owners[move->queue];
  disk->queues[index].thread = move->thread;
  disk->queues[index].thread_why = move->why;
  settle(disk, index);
}

// Threads spin only for queues in poll mode, unless the user said how long.
void QueuePlacer::update_polling() {
  for (size_t i = 0; i < iothreads_.size(); ++i) {
    loop::EventLoop* loop = iothreads_[i].loop;
    const bool wanted =
        iothreads_[i].polls_always || std::ranges::any_of(disks_, [loop](const auto& disk) {
          return std::ranges::any_of(disk->queues, [loop](const Queue& queue) {
            return queue.home == QueueHome{loop, SubmitMode::kPoll};
          });
        });
    if (wanted == polling_[i]) continue;
    polling_[i] = wanted;
    loop->post(
        [loop, max_ns = wanted ? iothreads_[i].poll_max_ns : 0] { loop->set_poll_max_ns(max_ns); });
  }
}

void QueuePlacer::fall_asleep() {
  for (const auto& disk : disks_) {
    for (Queue& queue : disk->queues) queue.requests_per_s = 0;
    disk->disk->tell_next_request();
  }
}

std::string QueuePlacer::home_name(const QueueHome& home) const {
  if (const auto vcpu = vcpu_of(home.loop)) return fmt::format("vcpu{}", *vcpu);
  const auto found = std::ranges::find(iothreads_, home.loop, &Iothread::loop);
  return found == iothreads_.end() ? "main" : found->name;
}

QueueWhere QueuePlacer::where(const PlacedDisk& disk, QueueIndex index) const {
  const auto found =
      std::ranges::find_if(disks_, [&disk](const auto& known) { return known->disk == &disk; });
  if (found == disks_.end() || index >= (*found)->queues.size()) return {};
  const Disk& known = **found;
  const Queue& queue = known.queues[index];
  QueueWhere where = queue.counted;
  where.mode = queue.home.mode;
  where.home = home_name(queue.home);
  const std::string mode_why =
      known.placement.submit == DiskSubmit::kAuto
          ? queue.chooser.why()
          : fmt::format("submit={}", disk_submit_name(known.placement.submit));
  where.why = fmt::format(
      "{}; {}: {}", mode_why, where.home,
      where.mode == SubmitMode::kVcpu ? queue.vcpu_why : std::string_view(queue.thread_why));
  const int64_t since_ns = options_.main_loop.now_ns() - kMinuteNs;
  where.moves_last_minute = static_cast<uint32_t>(
      std::ranges::count_if(queue.moves_ns, [since_ns](int64_t at) { return at >= since_ns; }));
  return where;
}

}  // namespace skiff::vmm
