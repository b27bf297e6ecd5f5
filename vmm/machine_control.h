// SPDX-License-Identifier: GPL-2.0-or-later
// MachineControl: what may be asked of a running machine from outside.
//
// Thread: main loop throughout; `done` comes on the main loop, never inside the call.
// Ownership: the machine implements it; services borrow it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"
#include "vmm/disk_removal.h"
#include "vmm/disk_status.h"

namespace skiff::vmm {

enum class MachineState : uint8_t { kPaused, kRunning, kResetting, kEnded };

constexpr std::string_view machine_state_name(MachineState state) {
  switch (state) {
    case MachineState::kPaused:
      return "paused";
    case MachineState::kRunning:
      return "running";
    case MachineState::kResetting:
      return "resetting";
    case MachineState::kEnded:
      break;
  }
  return "ended";
}

struct MachineStatus {
  MachineState state = MachineState::kPaused;
  uint32_t vcpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t resets = 0;
  std::string stop_reason;  // Why the machine paused by itself; empty: it did not.
  std::vector<DiskStatus> disks = {};
};

class MachineControl {
 public:
  virtual ~MachineControl() = default;
  virtual MachineStatus status() const = 0;
  // All vCPUs are out of the guest when `done` runs. Pausing a paused machine is no error.
  virtual void pause(std::function<void()> done) = 0;
  // What made the machine pause by itself (a disk with rerror or werror=stop) is tried again.
  virtual void resume(std::function<void()> done) = 0;
  // Back to power-on with the same kernel; the machine runs afterwards.
  virtual void reset(std::function<void()> done) = 0;
  // False when the guest does not listen to it; the press is kept for when it does.
  virtual bool press_power_button() = 0;
  // Disks are found by their name ("disk0"), or by the serial number or the path that only one has.
  // The faults that the disk is to have from now on (block/filters/fault_rules.h); an empty
  // text ends them.
  virtual loop::Result<void> set_disk_faults(std::string_view disk, std::string_view rules) = 0;
  // Which threads submit the disk's requests from now on: "auto", "iothread", "vcpu" or "poll".
  virtual loop::Result<void> set_disk_submit(std::string_view disk, std::string_view submit) = 0;
  // Another size for the disk; nothing: as large as its file is by now. `done` says how it
  // went, in a later turn.
  virtual void resize_disk(std::string_view disk, std::optional<uint64_t> size_bytes,
                           std::function<void(const loop::Result<void>&)> done) = 0;
  // A disk for a guest that may be running: `option` is the value of "disk" as the configuration
  // file has it, in JSON. `done` gets its name when the guest has been told.
  virtual void add_disk(std::string_view option,
                        std::function<void(const loop::Result<std::string>&)> done) = 0;
  // `done` says that the disk has gone and its file is free, or why not (vmm/disk_hotplug.h).
  virtual void remove_disk(std::string_view disk, const DiskRemoval& removal,
                           std::function<void(const loop::Result<void>&)> done) = 0;
  // Ends the machine with the status for "stopped from outside".
  virtual void quit() = 0;
};

}  // namespace skiff::vmm
