// SPDX-License-Identifier: GPL-2.0-or-later
// run_storage(): `skiff storage`, from its start to a signal that ends it.
//
// Thread: main; blocks until the end. Ownership: none.
#pragma once

#include "vmm/storage/storage_options.h"

namespace skiff::vmm {

// The process's exit status. SIGTERM and SIGINT end it when all that front ends have asked for is
// done, a second one at once; SIGHUP follows the sizes of the files.
int run_storage(const StorageOptions& options);

}  // namespace skiff::vmm
