// SPDX-License-Identifier: GPL-2.0-or-later
// DiskConfig: what the user said about one disk; IothreadConfig: about one thread that serves
// disks.
//
// Both are checked on their own here, and against each other by validate_disks(). Thread: any;
// values. Ownership: none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/error_policy.h"
#include "block/filters/fault_rules.h"
#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "block/nbd/nbd_patience.h"
#include "loop/cpu_set.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/config/field_values.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {

// --iothread: a thread that disks may share.
struct IothreadConfig {
  std::string id;
  loop::CpuSet cpus;  // Empty: wherever the process may run.
  loop::SchedPolicy sched;
  std::optional<uint32_t> poll_max_us;  // How long it may look out for work before it sleeps.
};

// On which thread a disk's requests are submitted and completed.
enum class DiskSubmit : uint8_t { kAuto, kIothread, kVcpu, kPoll };
std::string_view disk_submit_name(DiskSubmit submit);
std::optional<DiskSubmit> parse_disk_submit(std::string_view name);

// Which IOThread serves which queue of a disk.
struct QueueMap {
  enum class Kind : uint8_t {
    kAuto,        // As the host's topology suggests.
    kRoundRobin,  // Queue i on thread i, and so on in turns.
    kList,        // `iothreads`, one for each queue, in turns.
  };
  Kind kind = Kind::kAuto;
  std::vector<std::string> iothreads;
};

inline constexpr uint32_t kDiskQueuesMax = 255;
inline constexpr uint32_t kDisksMax = 24;
inline constexpr uint32_t kIothreadsMax = 255;

struct DiskConfig {
  std::string path;
  std::string
      vhost_user;  // A back end's socket instead of a path: another process serves the disk.
  bool format_given =
      false;  // "raw" is the only format; said or not decides what a qcow2 magic means.
  bool readonly = false;
  bool direct = false;
  block::IoEngineKind engine = block::IoEngineKind::kAuto;
  std::string serial;
  block::ErrorPolicies errors;
  std::optional<block::FaultRules> faults;  // Empty rules: some may be set later.
  block::ThrottleLimits throttle;
  block::NbdPatience nbd;  // Of a path that is an NBD URL.
  DeviceBus bus = DeviceBus::kPci;
  bool discard = true;  // Offered to the guest, where the image can.

  uint32_t queues = 0;  // 0: as many as suit the machine.
  uint16_t queue_size = 256;
  DiskSubmit submit = DiskSubmit::kAuto;
  std::vector<std::string> iothreads;  // Empty: all that there are.
  QueueMap map;
  bool steer = true;  // Queues follow the guest's interrupts; otherwise they stay where they are.
};

// The pairs of one --disk or --iothread.
loop::Result<DiskConfig> parse_disk(const std::vector<KeyValue>& pairs);
loop::Result<IothreadConfig> parse_iothread(const std::vector<KeyValue>& pairs);

// What no single disk can check: that the threads which a disk names are there, and no thread
// twice. `iothreads` empty: the machine makes its own.
loop::Result<void> validate_disk(const DiskConfig& disk, std::span<const IothreadConfig> iothreads);
loop::Result<void> validate_iothreads(std::span<const IothreadConfig> iothreads);

}  // namespace skiff::vmm
