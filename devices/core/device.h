// SPDX-License-Identifier: GPL-2.0-or-later
// Device: what the machine does with every device, whatever it is.
//
// Thread: main loop; vCPUs are paused when reset() is called.
// Ownership: the machine owns its devices.
#pragma once

#include <string_view>

#include "loop/task.h"

namespace skiff::devices {

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  // To the state after power-on. When the task ends, nothing of the device touches guest memory or
  // the host any more on behalf of what the guest did before.
  virtual loop::Task<void> reset() = 0;
};

}  // namespace skiff::devices
