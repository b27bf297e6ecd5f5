// SPDX-License-Identifier: GPL-2.0-or-later
// Draws how latencies are distributed, as an SVG picture.
//
// Times run to the right in powers of ten; upwards is the share of requests that took no longer, by
// the number of nines, so that the slow ones are seen. Thread: any; a pure function.
#pragma once

#include <span>
#include <string>

#include "loop/latency_histogram.h"

namespace skiff::vmm {

struct CdfCurve {
  std::string name;
  const loop::LatencyHistogram* latency = nullptr;
};

// Curves without a single request are left out, but for their name.
std::string cdf_svg(const std::string& title, std::span<const CdfCurve> curves);
// The same to be put into a page, whose style may give other colours to the classes `paper` (the
// background), `grid` and `cdf` (all of it).
std::string cdf_svg_element(const std::string& title, std::span<const CdfCurve> curves);

}  // namespace skiff::vmm
