// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/machine_description.h"

#include <spdlog/fmt/fmt.h>
#include <sys/utsname.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "vmm/doctor.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {
namespace {

namespace fs = std::filesystem;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// What stands behind "key : " in the file, as often as it does.
std::vector<std::string> values_in(const std::string& path, const std::string& key) {
  std::vector<std::string> values;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t begin =
        colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    values.push_back(begin == std::string::npos ? "" : line.substr(begin));
  }
  return values;
}

std::string cpu_text() {
  const auto models = values_in("/proc/cpuinfo", "model name");
  std::set<std::string> cores;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/devices/system/cpu", error)) {
    const std::string siblings = first_line(entry.path() / "topology/thread_siblings_list");
    if (!siblings.empty()) cores.insert(siblings);
  }
  return fmt::format("{}, {} CPUs ({} cores), {} MHz", models.empty() ? "unknown" : models.front(),
                     models.size(), cores.empty() ? models.size() : cores.size(),
                     values_in("/proc/cpuinfo", "cpu MHz").empty()
                         ? "?"
                         : values_in("/proc/cpuinfo", "cpu MHz").front());
}

std::string memory_text() {
  const auto total = values_in("/proc/meminfo", "MemTotal");
  if (total.empty()) return "unknown";
  return fmt::format("{:.1f} GiB", std::strtod(total.front().c_str(), nullptr) / (1 << 20));
}

std::string kernel_text() {
  utsname name = {};
  ::uname(&name);
  return fmt::format("{} {} {}", name.sysname, name.release, name.version);
}

std::string governor_text() {
  const std::string governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  return governor.empty() ? "not visible here" : governor;
}

std::string kvm_text() {
  std::string text;
  for (const std::string& line : examine_host().lines) {
    if (line.starts_with("What to do")) break;
    text += (text.empty() ? "" : " ") + line;
  }
  return text;
}

// The first line that a program prints of its version; empty when there is no such program.
std::string version_of(const std::string& program) {
  // NOLINTNEXTLINE(cert-env33-c,concurrency-mt-unsafe): a constant, before anything is measured.
  FILE* pipe = ::popen((program + " --version 2>/dev/null </dev/null").c_str(), "re");
  if (pipe == nullptr) return "";
  std::string line;
  for (int c = std::fgetc(pipe); c != EOF && c != '\n'; c = std::fgetc(pipe))
    line.push_back(static_cast<char>(c));
  ::pclose(pipe);
  return line;
}

}  // namespace

std::string file_system_of(const std::string& path, const std::string& mounts) {
  std::error_code error;
  const std::string absolute = fs::weakly_canonical(path, error).string();
  std::string best_point;
  std::string text = "unknown";
  std::istringstream lines(mounts);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string device;
    std::string point;
    std::string type;
    words >> device >> point >> type;
    const bool inside = point == "/" || absolute == point || absolute.starts_with(point + "/");
    if (!inside || point.size() < best_point.size()) continue;
    best_point = point;
    text = fmt::format("{} on {}", type, device);
  }
  return text;
}

MachineFacts describe_machine(const std::string& skiff_version,
                              const std::vector<std::string>& paths) {
  MachineFacts facts = {
      {"CPU", cpu_text()},
      {"Memory", memory_text()},
      {"Kernel", kernel_text()},
      {"KVM", kvm_text()},
      {"Governor", governor_text()},
      {"Clock source",
       first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource")},
      {"Load at the beginning", first_line("/proc/loadavg")},
      {"Skiff", fmt::format("{}, compiled by {}", skiff_version, __VERSION__)}};
  for (const char* peer : {"qemu-system-x86_64", "qemu-storage-daemon"})
    if (const std::string version = version_of(peer); !version.empty())
      facts.emplace_back(peer, version);
  const std::string mounts = text_of("/proc/self/mounts");
  for (const std::string& path : paths) facts.emplace_back(path, file_system_of(path, mounts));
  return facts;
}

}  // namespace skiff::vmm
