// SPDX-License-Identifier: GPL-2.0-or-later
// A histogram as one string, "1023:5 1087:9": times up to 1023 ns five times, up to 1087 nine
// times.
//
// So that JSON carries whole distributions: they can be drawn, and those of several added up.
// Thread: any; pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "loop/latency_histogram.h"

namespace skiff::vmm {

std::string histogram_text(const loop::LatencyHistogram& latency);
// Nothing when it is no such text: numbers out of range, or more than a histogram has buckets.
std::optional<loop::LatencyHistogram> parse_histogram_text(std::string_view text);

}  // namespace skiff::vmm
