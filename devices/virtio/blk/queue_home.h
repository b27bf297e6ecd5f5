// SPDX-License-Identifier: GPL-2.0-or-later
// QueueHome: where a virtio-blk queue lives, and how its requests get there.
//
// Thread: any. Ownership: a value; borrows the loop, which outlives the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "loop/event_loop.h"

namespace skiff::devices {

enum class SubmitMode : uint8_t {
  kIoThread,  // KVM signals the doorbell, whose eventfd the home's ring reads.
  // The home is a vCPU's loop, which has turned already: a kick ends KVM_RUN, and the thread that
  // took it submits. The kick of another vCPU goes to the home as a message.
  kVcpu,
  kPoll,  // As kIoThread, but before it sleeps the home watches the ring for as long as pays off.
};
inline constexpr size_t kSubmitModes = 3;

constexpr const char* submit_mode_name(SubmitMode mode) {
  switch (mode) {
    case SubmitMode::kIoThread:
      return "iothread";
    case SubmitMode::kVcpu:
      return "vcpu";
    case SubmitMode::kPoll:
      break;
  }
  return "poll";
}

struct QueueHome {
  loop::EventLoop* loop = nullptr;
  SubmitMode mode = SubmitMode::kIoThread;
  bool operator==(const QueueHome&) const = default;
};

}  // namespace skiff::devices
