// SPDX-License-Identifier: GPL-2.0-or-later
// Skiff's engines beside fio and qemu-img bench: 4 KiB reads of the same file, at random and in
// sequence, with 1, 4 and 32 requests under way, interleaved.
//
//   block_bench SKIFF DIRECT_FILE TMPFS_FILE [ROUNDS [SECONDS]]
//
// Prints tables in Markdown; each measurement goes to stderr as it comes.
#include <sys/utsname.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/perf/block_contestants.h"
#include "vmm/bench/statistics.h"

namespace {

using namespace skiff::perf;
using skiff::vmm::Interval;
using skiff::vmm::median_of;
using skiff::vmm::ratio_interval;

constexpr int kDefaultRounds = 7;
constexpr double kDefaultSeconds = 2;

// The rounds of one contestant in one cell.
struct Series {
  std::vector<double> iops;
  std::vector<double> cpu_ns;
  std::vector<double> ios_per_cpu_second;
  std::vector<double> syscalls;

  void add(const BlockSample& sample) {
    iops.push_back(sample.iops);
    cpu_ns.push_back(sample.cpu_ns_per_io);
    ios_per_cpu_second.push_back(sample.cpu_ns_per_io > 0 ? 1e9 / sample.cpu_ns_per_io : 0);
    if (sample.syscalls_per_io) syscalls.push_back(*sample.syscalls_per_io);
  }
};
using Cell = std::map<std::string, Series>;

struct Measured {
  BlockCell cell;
  Cell series;
};

std::string load_average() {
  std::ifstream file("/proc/loadavg");
  std::string load;
  file >> load;
  return load;
}

void measure(Measured& measured, std::vector<std::unique_ptr<BlockContestant>>& contestants,
             int rounds, double seconds) {
  const BlockCell& cell = measured.cell;
  for (int round = 0; round < rounds; ++round) {
    for (auto& contestant : contestants) {
      if (!contestant->can(cell)) continue;
      const std::optional<BlockSample> sample = contestant->run(cell, seconds);
      if (!sample) continue;
      measured.series[contestant->name()].add(*sample);
      std::fprintf(stderr, "%s %s QD%u round %d: %s %.0f IOPS, %.2f us CPU\n", cell.place.c_str(),
                   cell.random ? "random" : "sequential", cell.depth, round + 1,
                   contestant->name().c_str(), sample->iops, sample->cpu_ns_per_io / 1e3);
    }
  }
}

std::string column_name(const BlockCell& cell) {
  return std::string(cell.random ? "random" : "sequential") + " QD" + std::to_string(cell.depth);
}

// A row for each contestant, a column for each cell of the place.
void print_table(const std::string& place, const std::vector<Measured>& all,
                 const std::vector<std::unique_ptr<BlockContestant>>& contestants, bool cpu) {
  std::printf("\n%s, %s\n\n| |", place.c_str(), cpu ? "CPU us per I/O" : "thousand I/Os a second");
  std::string line = "|---|";
  for (const Measured& measured : all) {
    if (measured.cell.place != place) continue;
    std::printf(" %s |", column_name(measured.cell).c_str());
    line += "---|";
  }
  std::printf("\n%s\n", line.c_str());
  for (const auto& contestant : contestants) {
    std::string row = "| " + contestant->name() + " |";
    bool any = false;
    for (const Measured& measured : all) {
      if (measured.cell.place != place) continue;
      const auto found = measured.series.find(contestant->name());
      if (found == measured.series.end()) {
        row += " |";
        continue;
      }
      any = true;
      char text[32];
      const Series& series = found->second;
      const double value = cpu ? median_of(series.cpu_ns) : median_of(series.iops);
      std::snprintf(text, sizeof(text), cpu ? " %.2f |" : " %.1f |", value / 1e3);
      row += text;
    }
    if (any) std::printf("%s\n", row.c_str());
  }
}

const Series& series_of(const Cell& cell, const std::string& name) {
  static const Series kNone;
  const auto found = cell.find(name);
  return found == cell.end() ? kNone : found->second;
}

// Whoever of these names has the highest median.
const Series& best_of(const Cell& cell, const std::string& prefix,
                      std::vector<double> Series::* field) {
  static const Series kNone;
  const Series* best = &kNone;
  for (const auto& [name, series] : cell) {
    if (name.starts_with(prefix) && median_of(series.*field) > median_of(best->*field))
      best = &series;
  }
  return *best;
}

std::string text_of(const Interval& interval) {
  if (interval.middle == 0) return "";
  char text[64];
  std::snprintf(text, sizeof(text), "%.2f (%.2f to %.2f)", interval.middle, interval.low,
                interval.high);
  return text;
}

void print_ratios(const std::vector<Measured>& all) {
  std::printf(
      "\nRatios of medians with their 95 %% intervals\n\n"
      "| | io_uring again / io_uring (A/A) | io_uring / fio io_uring | "
      "io_uring / best qemu-img, I/Os per CPU second | auto / best qemu-img | "
      "best engine / best qemu-img | io_uring, system calls per I/O "
      "|\n|---|---|---|---|---|---|---|\n");
  for (const Measured& measured : all) {
    const Cell& cell = measured.series;
    const Series& ours = series_of(cell, kReference);
    const Series& qemu = best_of(cell, "qemu-img ", &Series::iops);
    const Series& frugal = best_of(cell, "qemu-img ", &Series::ios_per_cpu_second);
    std::printf(
        "| %s, %s | %s | %s | %s | %s | %s | %.3f |\n", measured.cell.place.c_str(),
        column_name(measured.cell).c_str(),
        text_of(ratio_interval(series_of(cell, kAgain).iops, ours.iops)).c_str(),
        text_of(ratio_interval(ours.iops, series_of(cell, "fio io_uring").iops)).c_str(),
        text_of(ratio_interval(ours.ios_per_cpu_second, frugal.ios_per_cpu_second)).c_str(),
        text_of(ratio_interval(series_of(cell, "skiff auto").iops, qemu.iops)).c_str(),
        text_of(ratio_interval(best_of(cell, "skiff ", &Series::iops).iops, qemu.iops)).c_str(),
        median_of(ours.syscalls));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: block_bench SKIFF DIRECT_FILE TMPFS_FILE [ROUNDS [SECONDS]]\n");
    return 120;
  }
  const int rounds = argc > 4 ? std::max(1, std::atoi(argv[4])) : kDefaultRounds;
  const double seconds = argc > 5 ? std::max(0.05, std::atof(argv[5])) : kDefaultSeconds;
  auto contestants = block_contestants({.skiff = argv[1]});
  std::vector<Measured> all;
  for (const auto& [place, path] : {std::pair{"ext4", argv[2]}, std::pair{"tmpfs", argv[3]}})
    for (const bool random : {true, false})
      for (const uint32_t depth : {1U, 4U, 32U}) all.push_back({{place, path, random, depth}, {}});
  for (const uint32_t depth : {1U, 4U, 32U}) all.push_back({{"null", "", true, depth}, {}});

  const std::string load_before = load_average();
  for (Measured& measured : all) measure(measured, contestants, rounds, seconds);

  utsname system = {};
  ::uname(&system);
  std::printf("Linux %s; %d rounds of %g s; load average before %s, after %s\n", system.release,
              rounds, seconds, load_before.c_str(), load_average().c_str());
  for (const char* place : {"ext4", "tmpfs", "null"}) {
    print_table(place, all, contestants, false);
    print_table(place, all, contestants, true);
  }
  print_ratios(all);
  return 0;
}
