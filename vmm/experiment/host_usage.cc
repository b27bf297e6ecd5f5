// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/host_usage.h"

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <system_error>

namespace skiff::vmm {
namespace {

namespace fs = std::filesystem;

// The group of a process: the third field behind the name, which is in brackets and may have
// anything in it (proc(5)).
pid_t group_of(const fs::path& process) {
  std::ifstream file(process / "stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(line.substr(name_end + 1));
  std::string state;
  pid_t parent = 0;
  pid_t group = 0;
  rest >> state >> parent >> group;
  return group;
}

// The number behind `key` in a file of "key: number" lines.
uint64_t number_in(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    uint64_t number = 0;
    rest >> number;
    return number;
  }
  return 0;
}

}  // namespace

HostCpuTime HostCpuTime::now() {
  std::ifstream file("/proc/stat");
  std::string name;
  // user nice system idle iowait irq softirq steal; guest time is in user already.
  std::array<uint64_t, 8> ticks = {};
  file >> name;
  HostCpuTime time;
  for (uint64_t& tick : ticks) {
    file >> tick;
    time.all += tick;
  }
  time.steal = ticks.back();
  return time;
}

double HostCpuTime::steal_percent_since(const HostCpuTime& begin) const {
  if (all <= begin.all || steal < begin.steal) return 0;
  return 100 * static_cast<double>(steal - begin.steal) / static_cast<double>(all - begin.all);
}

GroupUsage usage_of_groups(const std::set<pid_t>& groups) {
  GroupUsage usage;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (name.empty() || name.front() < '0' || name.front() > '9') continue;
    if (!groups.contains(group_of(entry.path()))) continue;
    usage.threads += number_in(entry.path() / "status", "Threads:");
    usage.anonymous_bytes += 1024 * number_in(entry.path() / "smaps_rollup", "Pss_Anon:");
  }
  return usage;
}

}  // namespace skiff::vmm
