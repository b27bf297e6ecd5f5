// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/sync_engine.h"

#include <span>

#include "block/blocking_io.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"

namespace skiff::block {

void SyncEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  for (IoRequest* request : batch) {
    if (!begin(*request, Fua::kByFlag)) continue;
    finish_later(*request, run_blocking(target_, *request, NullWait::kSpinIfShort));
  }
}

}  // namespace skiff::block
