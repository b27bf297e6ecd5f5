// SPDX-License-Identifier: GPL-2.0-or-later
// What every report of an experiment is made of: groups of cells, their names, numbers as people
// read them.
//
// Thread: any; pure functions. Ownership: groups borrow the cells of their result.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmm/bench/statistics.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

// Cells that are compared with each other.
struct CellGroup {
  std::string name;
  std::vector<const CellResult*> cells;
};
std::vector<CellGroup> groups_of(const ExperimentResult& result);
// What this cell is called among those it is compared with.
std::string name_in_group(const ExperimentResult& result, const CellResult& cell);

// Three digits that count: 0.0123, 1.23, 12.3, 123, 12300.
std::string three_digits(double value);
// As precise as anybody wants a factor.
std::string factor_text(double ratio);

// A cell beside its baseline; nothing for the baseline itself, and where one has no values.
struct ComparedCell {
  Interval ratio;
  Verdict verdict = Verdict::kUnknown;
};
std::optional<ComparedCell> compare_cell(const ExperimentResult& result, const CellResult& cell,
                                         const MetricInfo& info);

}  // namespace skiff::vmm
