// SPDX-License-Identifier: GPL-2.0-or-later
// QueuePlacer: gives each queue of the machine's disks its home and its mode, and goes on doing so
// while the guest runs.
//
// Ten times a second, as long as there is I/O, it looks at what each queue has done and lets
// ModeChooser, choose_vcpu() and Balancer decide; without I/O it sleeps until the next request.
// Thread: main loop. Ownership: borrows main loop, topology, disks and all loops, which outlive it
// or (disks) are removed first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/core/msi.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "vmm/config/disk_config.h"
#include "vmm/placement/host_topology.h"
#include "vmm/placement/iothread_probe.h"
#include "vmm/placement/mode_choice.h"
#include "vmm/placement/steering.h"

namespace skiff::vmm {

// What a queue has done so far.
struct QueuePulse {
  uint64_t requests = 0;
  uint64_t batches = 0;
  uint64_t kicks = 0;
  uint64_t foreign_kicks = 0;  // In vcpu mode: rung by another vCPU than the home.
  double busy_ns = 0;          // The times of all requests, added up.
  uint64_t last_foreign = 0;   // The thread of the last of them, as VcpuContext names it.
};

// A disk as the placer sees it. Thread: main loop, where nothing else is said.
class PlacedDisk {
 public:
  virtual const std::string& name() const = 0;
  virtual uint16_t queue_count() const = 0;
  virtual QueuePulse pulse(devices::QueueIndex queue) const = 0;
  // `moved` runs on any thread, perhaps inside the call.
  virtual void move_queue(devices::QueueIndex queue, const devices::QueueHome& home,
                          std::function<void()> moved) = 0;
  // Where it is by now: a queue whose image gives no channel at a home stays where it was.
  virtual devices::QueueHome home(devices::QueueIndex queue) const = 0;
  // From now on the next request of any queue calls QueuePlacer::wake(), once.
  virtual void tell_next_request() = 0;

 protected:
  ~PlacedDisk() = default;
};

// How a disk wants to be placed.
struct DiskPlacement {
  DiskSubmit submit = DiskSubmit::kAuto;
  bool steer = true;
  std::vector<size_t> threads;          // Of each queue at first; empty: no IOThread.
  std::vector<size_t> allowed_threads;  // Where the balancer may move them; empty: nowhere.
};

// Where a queue is, for people.
struct QueueWhere {
  devices::SubmitMode mode = devices::SubmitMode::kIoThread;
  std::string home;
  std::string why;  // The mode, then the home.
  uint64_t moves = 0;
  uint32_t moves_last_minute = 0;
  // Of its requests, as far as they can be told: by the vCPU that rang; on the host's CPU of the
  // vCPU that its interrupts go to, or by that vCPU itself; elsewhere.
  uint64_t on_submitter = 0;
  uint64_t on_target = 0;
  uint64_t elsewhere = 0;
};

class QueuePlacer {
 public:
  struct Iothread {
    std::string name;
    loop::EventLoop* loop = nullptr;
    // How long it may spin before it sleeps: always, or while a queue in poll mode lives there.
    int64_t poll_max_ns = 0;
    bool polls_always = false;
    std::string why = {};
  };
  struct VcpuContext {
    loop::EventLoop* loop = nullptr;  // Null: its thread cannot submit.
    std::function<uint32_t()> host_cpu;
    uint64_t thread = 0;  // Its pthread_t; 0: not known.
  };
  struct Options {
    loop::EventLoop& main_loop;
    const HostTopology& topology;
    std::vector<uint32_t> apic_ids;  // By vCPU.
    double usable_cores = 1;
    std::function<std::optional<double>()> idle_cores;
  };
  static constexpr int64_t kPeriodNs = 100'000'000;

  explicit QueuePlacer(Options options);
  ~QueuePlacer();
  QueuePlacer(const QueuePlacer&) = delete;
  QueuePlacer& operator=(const QueuePlacer&) = delete;

  size_t add_iothread(Iothread thread);
  // Queues that belong to vCPUs go there now.
  void set_vcpus(std::vector<VcpuContext> vcpus);
  void set_exit_cost(int64_t exit_ns) { exit_ns_ = static_cast<double>(exit_ns); }

  // Where the queues begin, for the creation of the device; add() follows with the same placement.
  std::vector<devices::QueueHome> first_homes(const DiskPlacement& placement,
                                              uint16_t queues) const;
  void add(PlacedDisk& disk, DiskPlacement placement);
  void remove(PlacedDisk& disk);
  // Another wish for a disk that is there.
  void change(const PlacedDisk& disk, DiskPlacement placement);

  // The guest has told a queue's interrupts where to go; nothing: nowhere. Any thread.
  void interrupt_target_changed(PlacedDisk& disk, devices::QueueIndex queue,
                                std::optional<devices::MsiMessage> message);
  // There is I/O. Any thread.
  void wake();

  // Queues stay where they are from now on; `settled` runs in a later turn when none is on its way.
  void hold(std::function<void()> settled);
  void release();
  // While held, with all devices stopped: no queue's home is a vCPU any more.
  void leave_vcpus();

  QueueWhere where(const PlacedDisk& disk, devices::QueueIndex queue) const;
  bool is_awake() const { return timer_.is_armed(); }

 private:
  struct Queue;
  struct Disk;
  struct Period;

  devices::QueueHome wanted_home(const Disk& disk, Queue& queue) const;
  void settle(const std::shared_ptr<Disk>& disk, size_t index);
  void on_moved(const std::shared_ptr<Disk>& disk, size_t index);
  std::string home_name(const devices::QueueHome& home) const;
  std::optional<uint32_t> vcpu_of(const loop::EventLoop* loop) const;
  bool vcpus_can_submit() const;

  void on_period();
  bool measure(Period& period);
  void count_completions(Queue& queue, uint64_t requests, double foreign) const;
  static void note_ringer(Queue& queue, std::optional<uint32_t> vcpu);
  std::optional<uint32_t> vcpu_of_thread(uint64_t thread) const;
  std::optional<uint32_t> single_target(const Queue& queue) const;
  std::optional<uint32_t> target_cpu(const Queue& queue) const;
  void choose_mode(const std::shared_ptr<Disk>& disk, size_t index, const Period& period);
  void balance();
  void update_polling();
  void fall_asleep();
  void report_if_settled();

  const Options options_;
  const loop::Home home_;
  std::shared_ptr<QueuePlacer*> self_;  // Messages from elsewhere hold it weakly.
  Balancer balancer_;
  std::vector<Iothread> iothreads_;
  std::vector<std::shared_ptr<IothreadProbe>> probes_;  // Of each IOThread.
  std::vector<bool> polling_;                           // Of each, whether it may spin now.
  std::vector<VcpuContext> vcpus_;
  std::list<std::shared_ptr<Disk>> disks_;
  double exit_ns_ = 0;
  double idle_cores_ = 0;
  bool is_held_ = false;
  std::function<void()> settled_;
  uint32_t quiet_periods_ = 0;
  int64_t last_period_ns_ = 0;
  loop::Timer timer_;
};

}  // namespace skiff::vmm
