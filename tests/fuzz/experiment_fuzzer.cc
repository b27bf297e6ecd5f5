// SPDX-License-Identifier: GPL-2.0-or-later
// What `skiff experiment` reads: its own files, results, what children print, and costs, fed with
// anything. What must hold: no crash, an error has a message, and what was read can be written.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "loop/check.h"
#include "vmm/experiment/cell_sample.h"
#include "vmm/experiment/compare_results.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/html_report.h"
#include "vmm/experiment/simulator/host_costs.h"
#include "vmm/experiment/simulator/simulation_options.h"

namespace {

using namespace skiff::vmm;

void read_plan(const std::string& text) {
  const auto plan = parse_experiment(text);
  if (!plan) {
    SKIFF_CHECK(!plan.error().message().empty());
    return;
  }
  std::map<std::string, std::string> paths;
  for (const ExperimentFile& file : plan->files) paths[file.name] = "/file";
  const auto cells = expand_experiment(*plan, paths);
  if (!cells) SKIFF_CHECK(!cells.error().message().empty());
  if (cells) SKIFF_CHECK(!cells->empty() && cells->size() <= 2 * kExperimentCellsMax);
}

void read_results(const std::string& text) {
  const auto result = parse_experiment_json(text);
  if (!result) {
    SKIFF_CHECK(!result.error().message().empty());
    return;
  }
  SKIFF_CHECK(parse_experiment_json(experiment_json(*result)).has_value());
  SKIFF_CHECK(html_report(*result).ends_with("</html>\n"));
  SKIFF_CHECK(!compare_text(*result, *result).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  const auto choice = input.ConsumeIntegralInRange<int>(0, 4);
  const std::string text = input.ConsumeRemainingBytesAsString();
  if (choice == 0) read_plan(text);
  if (choice == 1) read_results(text);
  if (choice == 2) (void)parse_bench_output(text);
  if (choice == 3) (void)parse_simulation(text);
  HostCosts costs;
  if (choice == 4) (void)apply_costs_text(costs, text);
  return 0;
}
