// SPDX-License-Identifier: GPL-2.0-or-later
// ConsolePortSpec: a port that the guest's virtio-console is to have.
//
// Thread: any; a value. Ownership: borrows the backend.
#pragma once

#include <string>

#include "devices/virtio/console/console_backend.h"

namespace skiff::vmm {

struct ConsolePortSpec {
  bool is_console = false;  // /dev/hvcN; otherwise /dev/virtio-ports/NAME.
  std::string name;
  devices::ConsoleBackend* backend = nullptr;
};

}  // namespace skiff::vmm
