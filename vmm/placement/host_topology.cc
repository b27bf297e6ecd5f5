// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/host_topology.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

// No file of these has more, and no host that many nodes and caches.
constexpr size_t kFileBytesMax = 64 * 1024;
constexpr uint32_t kNodesMax = 1024;
constexpr uint32_t kCacheIndexesMax = 16;

// The first line of a small file, or the whole of it; nothing when it cannot be read.
std::optional<std::string> read_text(const std::string& path) {
  const loop::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return std::nullopt;
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() < kFileBytesMax) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<uint32_t> read_number(const std::string& path) {
  const auto text = read_text(path);
  return text ? parse_number<uint32_t>(*text) : std::nullopt;
}

std::optional<loop::CpuSet> read_list(const std::string& path) {
  const auto text = read_text(path);
  if (!text) return std::nullopt;
  auto cpus = loop::CpuSet::parse(*text);
  if (!cpus || cpus->empty()) return std::nullopt;
  return *std::move(cpus);
}

std::optional<uint32_t> lowest_of(const std::optional<loop::CpuSet>& cpus) {
  if (!cpus) return std::nullopt;
  for (uint32_t cpu = 0; cpu < loop::CpuSet::kMaxCpus; ++cpu)
    if (cpus->contains(cpu)) return cpu;
  return std::nullopt;
}

// A list that leaves out the CPU it is about is no fact about it.
std::optional<uint32_t> lowest_sharing(const std::string& path, uint32_t cpu) {
  const auto sharing = read_list(path);
  return sharing && sharing->contains(cpu) ? lowest_of(sharing) : std::nullopt;
}

// Of the highest level that it has: what several cores share.
uint32_t read_cache(const std::string& cpu_directory, uint32_t cpu, uint32_t core) {
  uint32_t best_level = 0;
  uint32_t cache = core;
  for (uint32_t index = 0; index < kCacheIndexesMax; ++index) {
    const std::string directory = fmt::format("{}/cache/index{}", cpu_directory, index);
    const auto level = read_number(directory + "/level");
    if (!level) break;
    const auto lowest = lowest_sharing(directory + "/shared_cpu_list", cpu);
    if (*level < 2 || *level <= best_level || !lowest) continue;
    best_level = *level;
    cache = *lowest;
  }
  return cache;
}

HostCpu read_cpu(const std::string& cpu_directory, uint32_t cpu) {
  HostCpu result{.cpu = cpu};
  const std::string topology = cpu_directory + "/topology/";
  result.package = read_number(topology + "physical_package_id").value_or(0);
  // The second is the name before Linux 5.0 or so.
  auto core = lowest_sharing(topology + "core_cpus_list", cpu);
  if (!core) core = lowest_sharing(topology + "thread_siblings_list", cpu);
  result.core = core.value_or(cpu);
  result.cache = read_cache(cpu_directory, cpu, result.core);
  return result;
}

std::map<uint32_t, uint32_t> read_nodes(const std::string& sys_root) {
  std::map<uint32_t, uint32_t> node_of;
  const std::string directory = sys_root + "/devices/system/node";
  const auto online = read_list(directory + "/online");
  if (!online) return node_of;
  for (uint32_t node = 0; node < kNodesMax; ++node) {
    if (!online->contains(node)) continue;
    const auto cpus = read_list(fmt::format("{}/node{}/cpulist", directory, node));
    if (!cpus) continue;  // Memory without CPUs.
    for (uint32_t cpu = 0; cpu < loop::CpuSet::kMaxCpus; ++cpu)
      if (cpus->contains(cpu)) node_of.emplace(cpu, node);
  }
  return node_of;
}

}  // namespace

HostTopology::HostTopology(std::vector<HostCpu> cpus) : cpus_(std::move(cpus)) {
  std::ranges::sort(cpus_, {}, &HostCpu::cpu);
}

HostTopology HostTopology::read(const std::string& sys_root) {
  const std::string directory = sys_root + "/devices/system/cpu";
  auto online = read_list(directory + "/online");
  if (!online) {
    auto process = loop::CpuSet::of_process();
    if (process) online = *process;
  }
  const auto node_of = read_nodes(sys_root);
  std::vector<HostCpu> cpus;
  for (uint32_t cpu = 0; online && cpu < loop::CpuSet::kMaxCpus; ++cpu) {
    if (!online->contains(cpu)) continue;
    HostCpu host = read_cpu(fmt::format("{}/cpu{}", directory, cpu), cpu);
    const auto node = node_of.find(cpu);
    if (node != node_of.end()) host.node = node->second;
    cpus.push_back(host);
  }
  if (cpus.empty()) cpus.push_back({});
  return HostTopology(std::move(cpus));
}

const HostCpu* HostTopology::find(uint32_t cpu) const {
  const auto found = std::ranges::lower_bound(cpus_, cpu, {}, &HostCpu::cpu);
  return found != cpus_.end() && found->cpu == cpu ? &*found : nullptr;
}

CpuDistance HostTopology::distance(uint32_t a, uint32_t b) const {
  const HostCpu* left = find(a);
  const HostCpu* right = find(b);
  if (left == nullptr || right == nullptr) return CpuDistance::kFar;
  if (a == b) return CpuDistance::kSameCpu;
  if (left->core == right->core) return CpuDistance::kSibling;
  if (left->cache == right->cache) return CpuDistance::kSameCache;
  return left->node == right->node ? CpuDistance::kSameNode : CpuDistance::kFar;
}

uint32_t HostTopology::core_count(const loop::CpuSet& cpus) const {
  std::set<uint32_t> cores;
  for (const HostCpu& cpu : cpus_)
    if (cpus.contains(cpu.cpu)) cores.insert(cpu.core);
  return static_cast<uint32_t>(cores.size());
}

bool HostTopology::has_several_nodes() const {
  return std::ranges::any_of(cpus_,
                             [this](const HostCpu& cpu) { return cpu.node != cpus_.front().node; });
}

uint32_t UsableCpus::cores(const HostTopology& topology) const {
  uint32_t count = std::max(topology.core_count(cpus), 1u);
  if (quota) count = std::min(count, static_cast<uint32_t>(std::max(std::floor(*quota), 1.0)));
  return count;
}

namespace {

// cgroup v2: "max 100000" or "150000 100000".
std::optional<double> read_cpu_max(const std::string& path) {
  const auto text = read_text(path);
  if (!text) return std::nullopt;
  const size_t space = text->find(' ');
  if (space == std::string::npos) return std::nullopt;
  const auto quota = parse_number<uint64_t>(std::string_view(*text).substr(0, space));
  const auto period = parse_number<uint64_t>(std::string_view(*text).substr(space + 1));
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

// cgroup v1; -1 is no limit.
std::optional<double> read_cfs_quota(const std::string& directory) {
  const auto quota_text = read_text(directory + "/cpu.cfs_quota_us");
  const auto period = read_number(directory + "/cpu.cfs_period_us");
  const auto quota = quota_text ? parse_number<int64_t>(*quota_text) : std::nullopt;
  if (!quota || *quota <= 0 || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / *period;
}

bool names_cpu_controller(std::string_view controllers) {
  for (size_t start = 0; start <= controllers.size();) {
    const size_t end = std::min(controllers.find(',', start), controllers.size());
    if (controllers.substr(start, end - start) == "cpu") return true;
    start = end + 1;
  }
  return false;
}

void take_least(std::optional<double>& least, std::optional<double> other) {
  if (other && (!least || *other < *least)) least = other;
}

}  // namespace

std::optional<double> read_cpu_quota(const CgroupFiles& files) {
  std::optional<double> least;
  const std::string membership = read_text(files.membership).value_or("");
  // Each line: hierarchy:controllers:path. Version 2 has no controllers.
  for (size_t start = 0; start < membership.size();) {
    const size_t end = std::min(membership.find('\n', start), membership.size());
    const std::string line = membership.substr(start, end - start);
    start = end + 1;
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool is_unified = controllers.empty();
    if (!is_unified && !names_cpu_controller(controllers)) continue;
    // The mount point's own limit comes last: in a container it is the only one to be seen.
    while (true) {
      if (is_unified) {
        take_least(least, read_cpu_max(files.root + path + "/cpu.max"));
      } else {
        take_least(least, read_cfs_quota(files.root + "/cpu" + path));
        take_least(least, read_cfs_quota(files.root + "/" + controllers + path));
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos || path.empty()) break;
      path.resize(slash);
    }
  }
  return least;
}

UsableCpus find_usable_cpus(const CgroupFiles& files) {
  UsableCpus usable;
  auto cpus = loop::CpuSet::of_process();
  if (cpus) usable.cpus = *std::move(cpus);
  usable.quota = read_cpu_quota(files);
  return usable;
}

}  // namespace skiff::vmm
