// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/cpu_set.h"

#include <spdlog/fmt/fmt.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "loop/check.h"
#include "loop/result.h"

namespace skiff::loop {
namespace {

constexpr uint32_t kWordBits = 64;

std::optional<uint32_t> parse_cpu(std::string_view text) {
  uint32_t cpu = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpu);
  if (error != std::errc() || end != text.data() + text.size() || cpu >= CpuSet::kMaxCpus)
    return std::nullopt;
  return cpu;
}

}  // namespace

Result<CpuSet> CpuSet::parse(std::string_view text) {
  CpuSet set;
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t dash = item.find('-');
    const std::optional<uint32_t> first = parse_cpu(item.substr(0, dash));
    const std::optional<uint32_t> last =
        dash == std::string_view::npos ? first : parse_cpu(item.substr(dash + 1));
    if (!first || !last || *last < *first) {
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("\"{}\" is no list of CPUs: give numbers below {} and ranges, "
                               "as in \"0-3,8\"",
                               text, kMaxCpus));
    }
    for (uint32_t cpu = *first; cpu <= *last; ++cpu) set.add(cpu);
    if (comma == std::string_view::npos) return set;
    rest = rest.substr(comma + 1);
  }
}

Result<CpuSet> CpuSet::of_process() { return of_thread(getpid()); }
Result<CpuSet> CpuSet::of_current_thread() { return of_thread(0); }

Result<CpuSet> CpuSet::of_thread(int thread_id) {
  std::array<uint64_t, kMaxCpus / kWordBits> words{};
  // The system call itself: glibc's wrapper hides how many bytes the kernel filled.
  if (syscall(SYS_sched_getaffinity, thread_id, sizeof(words), words.data()) < 0)
    return Error::from_errno(errno, "Reading the CPU affinity");
  CpuSet set;
  for (uint32_t cpu = 0; cpu < kMaxCpus; ++cpu)
    if ((words[cpu / kWordBits] >> (cpu % kWordBits)) & 1) set.add(cpu);
  return set;
}

void CpuSet::add(uint32_t cpu) {
  SKIFF_CHECK(cpu < kMaxCpus);
  if (words_.size() <= cpu / kWordBits) words_.resize(cpu / kWordBits + 1);
  words_[cpu / kWordBits] |= uint64_t{1} << (cpu % kWordBits);
}

bool CpuSet::contains(uint32_t cpu) const {
  return cpu / kWordBits < words_.size() &&
         ((words_[cpu / kWordBits] >> (cpu % kWordBits)) & 1) != 0;
}

uint32_t CpuSet::count() const {
  uint32_t bits = 0;
  for (const uint64_t word : words_) bits += static_cast<uint32_t>(std::popcount(word));
  return bits;
}

std::string CpuSet::to_string() const {
  std::string text;
  const auto limit = static_cast<uint32_t>(words_.size()) * kWordBits;
  for (uint32_t first = 0; first < limit; ++first) {
    if (!contains(first)) continue;
    uint32_t last = first;
    while (contains(last + 1)) ++last;
    if (!text.empty()) text += ',';
    text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
    first = last;
  }
  return text;
}

Result<void> CpuSet::apply_to_current_thread() const {
  if (syscall(SYS_sched_setaffinity, 0, words_.size() * sizeof(uint64_t), words_.data()) == 0)
    return {};
  const int os_error = errno;
  if (os_error != EINVAL)
    return Error::from_errno(os_error, fmt::format("Pinning to CPUs {}", to_string()));
  Result<CpuSet> allowed = of_process();
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("Pinning to CPUs {}: none of them is there for this process, which may "
                           "use {}",
                           to_string(), allowed ? allowed->to_string() : "others"),
               os_error);
}

}  // namespace skiff::loop
