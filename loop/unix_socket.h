// SPDX-License-Identifier: GPL-2.0-or-later
// Listening on a unix socket file without stepping on anybody.
//
// Thread: any; blocks no longer than a local connect.
#pragma once

#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

// A non-blocking listening stream socket at `path`, mode 0600. A socket file that nobody listens on
// is replaced; kBusy when somebody does, or when something other than a socket lies there.
Result<UniqueFd> listen_unix(const std::string& path);

}  // namespace skiff::loop
