// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/bench_output.h"

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <ios>
#include <string>

#include "loop/result.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {

int fail_bench(const std::string& message, int status) {
  std::fprintf(stderr, "skiff: %s\n", message.c_str());
  return status;
}

int fail_bench(const loop::Error& error) {
  const bool run_failed = error.kind() == loop::ErrorKind::kIo;
  return fail_bench(error.message(), run_failed ? kExitBenchFailed : kExitUsage);
}

bool can_write_plot(const std::string& name) {
  if (name.empty() || std::ofstream(name, std::ios::app)) return true;
  fail_bench("--plot " + name + ": cannot be written", kExitUsage);
  return false;
}

void show_round(const std::string& name, uint32_t round, double iops) {
  std::fprintf(stderr, "%s round %u: %.0f IOPS\n", name.c_str(), round, iops);
}

int write_results(const std::string& text, const std::string& plot_name, const std::string& plot) {
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) != 0) return fail_bench("Writing the results failed", kExitBenchFailed);
  if (plot_name.empty()) return 0;
  std::ofstream file(plot_name);
  file << plot;
  file.close();
  return file ? 0 : fail_bench("Writing " + plot_name + " failed", kExitBenchFailed);
}

}  // namespace skiff::vmm
