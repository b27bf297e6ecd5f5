// SPDX-License-Identifier: GPL-2.0-or-later
// Disks for guests: how they are written on the command line, and places that take O_DIRECT.
#pragma once

#include <string>

#include "tests/guest/guest.h"

namespace skiff::guest {

// The value of --disk.
std::string disk(const std::string& path, const std::string& more = "");

bool can_do_direct_io(const std::string& path);

// A loop device over a file: takes O_DIRECT where the file's own file system does not, as tmpfs
// did until Linux 6.6, and is a block device.
class LoopDevice {
 public:
  explicit LoopDevice(const ScratchFile& file);
  ~LoopDevice();
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace skiff::guest
