// SPDX-License-Identifier: GPL-2.0-or-later
// From what the user said about a disk to how its image is opened.
//
// Thread: any; a pure function.
#pragma once

#include "block/open_image.h"
#include "vmm/config/disk_config.h"

namespace skiff::vmm {

block::ImageOptions image_options(const DiskConfig& disk);

}  // namespace skiff::vmm
