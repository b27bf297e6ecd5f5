// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/disk_image.h"

#include "block/file_device.h"
#include "block/open_image.h"
#include "vmm/config/disk_config.h"

namespace skiff::vmm {

block::ImageOptions image_options(const DiskConfig& disk) {
  block::ImageOptions options;
  options.path = disk.path;
  if (disk.format_given) options.format = block::ImageFormat::kRaw;
  if (disk.readonly) options.access = block::WriteAccess::kReadOnly;
  if (disk.direct) options.direct = block::DirectIo::kOn;
  options.engine = disk.engine;
  options.faults = disk.faults;
  options.throttle = disk.throttle;
  options.nbd = disk.nbd;
  return options;
}

}  // namespace skiff::vmm
