// SPDX-License-Identifier: GPL-2.0-or-later
// StorageOptions: what the user said to `skiff storage`.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <string>
#include <vector>

#include "loop/log.h"
#include "loop/result.h"
#include "vmm/config/machine_config.h"

namespace skiff::vmm {

// As it stands on the command line. The n-th socket is the n-th disk's.
struct StorageWords {
  std::vector<std::string> sockets;
  std::vector<std::string> disks;
  std::vector<std::string> iothreads;
  std::string workers;
  std::string log;
};

struct StorageExport {
  std::string socket;
  DiskConfig disk;
};

struct StorageOptions {
  std::vector<StorageExport> exports;
  std::vector<IothreadConfig> iothreads;  // Empty: as many as suit the host.
  WorkersConfig workers;
  loop::LogLevel log_level = loop::LogLevel::kWarn;
};

// kInvalidArgument, in words for the user.
loop::Result<StorageOptions> parse_storage(const StorageWords& words);

}  // namespace skiff::vmm
