// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/check.h"

#include <cstdio>
#include <cstdlib>

namespace skiff::loop {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "skiff: internal error: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace skiff::loop
