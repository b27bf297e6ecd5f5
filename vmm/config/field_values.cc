// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/field_values.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/thread.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {

bool assign_switch(bool& target, std::string_view text) {
  const std::optional<bool> value = parse_switch(text);
  if (value) target = *value;
  return value.has_value();
}

bool assign_text(std::string& target, std::string_view text) {
  target = text;
  return !text.empty();
}

bool assign_sched(loop::SchedPolicy& target, std::string_view text) {
  const auto policy = loop::SchedPolicy::parse(text);
  if (policy) target = *policy;
  return policy.has_value();
}

bool assign_cpus(loop::CpuSet& target, std::string_view text) {
  std::string list(text);
  std::ranges::replace(list, ':', ',');
  auto cpus = loop::CpuSet::parse(list);
  if (!cpus || cpus->empty()) return false;
  target = *std::move(cpus);
  return true;
}

bool assign_words(std::vector<std::string>& target, std::string_view text) {
  std::vector<std::string> words;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(':', start), text.size());
    if (end == start) return false;
    words.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  target = std::move(words);
  return true;
}

}  // namespace skiff::vmm
