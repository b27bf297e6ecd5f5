// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/thread_usage.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace skiff::vmm {
namespace {

namespace fs = std::filesystem;

std::string read_all(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

int64_t number_behind(const std::string& text, std::string_view label) {
  const size_t at = text.find(label);
  if (at == std::string::npos) return 0;
  const char* begin = text.data() + text.find_first_not_of(" \t", at + label.size());
  int64_t value = 0;
  std::from_chars(begin, text.data() + text.size(), value);
  return value;
}

// proc(5), /proc/pid/stat: guest_time is field 43, and field 3 follows the last parenthesis.
int64_t guest_ns(const std::string& stat) {
  size_t at = stat.rfind(')');
  for (int field = 2; field < 43 && at != std::string::npos; ++field) at = stat.find(' ', at + 1);
  if (at == std::string::npos) return 0;
  int64_t ticks = 0;
  std::from_chars(stat.data() + at + 1, stat.data() + stat.size(), ticks);
  static const int64_t kTickNs = 1'000'000'000 / ::sysconf(_SC_CLK_TCK);
  return ticks * kTickNs;
}

std::optional<ThreadUsage> usage_of(const fs::path& task) {
  ThreadUsage usage;
  const std::string schedstat = read_all(task / "schedstat");
  const std::string status = read_all(task / "status");
  const std::string stat = read_all(task / "stat");
  if (status.empty() || stat.empty()) return std::nullopt;
  usage.name = read_all(task / "comm");
  if (!usage.name.empty() && usage.name.back() == '\n') usage.name.pop_back();
  usage.tid = static_cast<pid_t>(number_behind(status, "\nPid:"));
  std::from_chars(schedstat.data(), schedstat.data() + schedstat.size(), usage.cpu_ns);
  usage.guest_ns = guest_ns(stat);
  const int64_t asked_for = number_behind(status, "\nvoluntary_ctxt_switches:");
  usage.sleeps = static_cast<uint64_t>(asked_for);
  usage.context_switches =
      static_cast<uint64_t>(asked_for + number_behind(status, "\nnonvoluntary_ctxt_switches:"));
  return usage;
}

}  // namespace

std::vector<ThreadUsage> threads_of(pid_t pid) {
  std::vector<ThreadUsage> threads;
  std::error_code error;
  const fs::path tasks = fs::path("/proc") / std::to_string(pid) / "task";
  for (fs::directory_iterator at(tasks, error), end; !error && at != end; at.increment(error))
    if (auto usage = usage_of(at->path())) threads.push_back(*std::move(usage));
  return threads;
}

std::vector<ThreadUsage> usage_since(const std::vector<ThreadUsage>& begin,
                                     std::vector<ThreadUsage> end) {
  for (ThreadUsage& thread : end) {
    const auto before = std::ranges::find(begin, thread.tid, &ThreadUsage::tid);
    if (before == begin.end()) continue;
    thread.cpu_ns -= before->cpu_ns;
    thread.guest_ns -= before->guest_ns;
    thread.context_switches -= before->context_switches;
    thread.sleeps -= before->sleeps;
  }
  std::ranges::sort(end, std::ranges::greater(), &ThreadUsage::cpu_ns);
  return end;
}

}  // namespace skiff::vmm
