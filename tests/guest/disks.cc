// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/guest/disks.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "loop/unique_fd.h"
#include "tests/guest/guest.h"

namespace skiff::guest {

std::string disk(const std::string& path, const std::string& more) {
  return "path=" + path + ",format=raw" + more;
}

bool can_do_direct_io(const std::string& path) {
  return static_cast<bool>(loop::UniqueFd(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)));
}

LoopDevice::LoopDevice(const ScratchFile& file) {
  // In the lab the driver is a module, elsewhere it is there: losetup will say.
  [[maybe_unused]] static const int kLoaded = std::system("load loop >/dev/null 2>&1");
  for (int i = 0; i < 8 && path_.empty(); ++i) {
    const std::string path = "/dev/loop" + std::to_string(i);
    if (std::system(("losetup " + path + " " + file.path() + " 2>/dev/null").c_str()) == 0)
      path_ = path;
  }
  EXPECT_FALSE(path_.empty()) << "losetup failed: a place for files with O_DIRECT, or root?";
}

LoopDevice::~LoopDevice() { EXPECT_EQ(std::system(("losetup -d " + path_).c_str()), 0); }

}  // namespace skiff::guest
