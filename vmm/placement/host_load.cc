// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/host_load.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "loop/cpu_set.h"

namespace skiff::vmm {
namespace {

constexpr uint64_t kTicksMin = 4;  // Of each CPU: 40 ms, less says nothing.
// user, nice, system, idle, iowait, irq, softirq, steal (proc(5)); guest times are in user.
constexpr int kFields = 8;
constexpr int kIdleField = 3;
constexpr int kIowaitField = 4;

}  // namespace

HostLoad::HostLoad(loop::CpuSet cpus, std::string stat_path)
    : cpus_(std::move(cpus)), stat_path_(std::move(stat_path)) {}

std::optional<HostLoad::Times> HostLoad::read() const {
  std::ifstream file(stat_path_);
  Times times;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    const bool is_cpu =
        name.size() > 3 && name.size() < 9 && name.starts_with("cpu") &&
        std::all_of(
            name.begin() + 3, name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!is_cpu) {
      if (times.cpus > 0) break;  // What follows is long, and not about CPUs.
      continue;
    }
    const auto cpu = static_cast<uint32_t>(std::stoul(name.substr(3)));
    if (!cpus_.empty() && !cpus_.contains(cpu)) continue;
    ++times.cpus;
    for (int field = 0; field < kFields; ++field) {
      std::string word;
      words >> word;
      uint64_t ticks = 0;
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), ticks);
      if (error != std::errc() || end != word.data() + word.size()) break;
      times.all += ticks;
      if (field == kIdleField || field == kIowaitField) times.idle += ticks;
    }
  }
  if (times.cpus == 0) return std::nullopt;
  return times;
}

std::optional<double> HostLoad::idle_cpus() {
  const auto now = read();
  if (!now) return std::nullopt;
  if (!last_ || now->all < last_->all || now->idle < last_->idle || now->cpus != last_->cpus) {
    last_ = now;
    return std::nullopt;
  }
  const uint64_t all = now->all - last_->all;
  if (all < kTicksMin * now->cpus) return std::nullopt;
  const uint64_t idle = std::min(now->idle - last_->idle, all);
  last_ = now;
  return static_cast<double>(idle) / static_cast<double>(all) * now->cpus;
}

}  // namespace skiff::vmm
