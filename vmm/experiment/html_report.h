// SPDX-License-Identifier: GPL-2.0-or-later
// An experiment's result as one HTML file that needs nothing else: tables, distributions drawn,
// the machine, and how it was measured.
//
// It is well-formed XML as well, and follows the reader's choice of a light or a dark page.
// Thread: any; a pure function.
#pragma once

#include <string>

#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

std::string html_report(const ExperimentResult& result);

}  // namespace skiff::vmm
