// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/payload/parameters.h"

#include <cstddef>
#include <cstdint>

namespace skiff::vmm::payload {
namespace {

struct Word {
  const char* name;
  uint64_t Parameters::* member;
};
constexpr Word kWords[] = {
    {"cpus", &Parameters::cpus},
    {"queues", &Parameters::queues},
    {"queue_size", &Parameters::queue_size},
    {"bs", &Parameters::bs},
    {"depth", &Parameters::depth},
    {"random", &Parameters::random},
    {"write_percent", &Parameters::write_percent},
    {"verify", &Parameters::verify},
    {"rate", &Parameters::rate},
    {"duration_us", &Parameters::duration_us},
    {"warmup_us", &Parameters::warmup_us},
    {"mmio", &Parameters::mmio},
    {"irq", &Parameters::irq},
    {"event_idx", &Parameters::event_idx},
    {"indirect", &Parameters::indirect},
    {"blocks", &Parameters::blocks},
    {"seed", &Parameters::seed},
    {"tsc_khz", &Parameters::tsc_khz},
    {"ram", &Parameters::ram},
    {"ecam", &Parameters::ecam},
    {"bars", &Parameters::bars},
    {"mmio_base", &Parameters::mmio_base},
};
constexpr const char* kPrefix = "bench.";

// Behind `prefix`, or null when `text` does not begin with it.
const char* behind(const char* text, const char* prefix) {
  while (*prefix != '\0')
    if (*text++ != *prefix++) return nullptr;
  return text;
}

bool is_end(char c) { return c == '\0' || c == ' '; }

bool parse_number(const char* text, uint64_t& value) {
  if (is_end(*text)) return false;
  value = 0;
  for (; !is_end(*text); ++text) {
    if (*text < '0' || *text > '9') return false;
    value = value * 10 + static_cast<uint64_t>(*text - '0');
  }
  return true;
}

bool parse_word(const char* text, Parameters& parameters) {
  for (const Word& word : kWords) {
    const char* rest = behind(text, word.name);
    if (rest != nullptr && *rest == '=') return parse_number(rest + 1, parameters.*word.member);
  }
  return false;
}

}  // namespace

bool parse_parameters(const char* command_line, Parameters& parameters, const char*& bad) {
  for (const char* at = command_line; *at != '\0';) {
    const char* ours = behind(at, kPrefix);
    if (ours != nullptr && !parse_word(ours, parameters)) {
      bad = at;
      return false;
    }
    while (!is_end(*at)) ++at;
    while (*at == ' ') ++at;
  }
  return true;
}

}  // namespace skiff::vmm::payload
