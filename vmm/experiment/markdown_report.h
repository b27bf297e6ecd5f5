// SPDX-License-Identifier: GPL-2.0-or-later
// What an experiment found, as tables for the pages of docs/experiments.
//
// Thread: any; a pure function.
#pragma once

#include <string>

#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

// A table for each group: medians with their intervals, and the ratio to the baseline, in bold
// where the difference is larger than that between two measurements of the same. Then what failed,
// and on which machine it was.
std::string markdown_report(const ExperimentResult& result);

}  // namespace skiff::vmm
