// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_result.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Json = nlohmann::json;

Error malformed(std::string_view what) {
  return Error(ErrorKind::kCorrupt, "The guest's results: " + std::string(what));
}

// The unsigned number of that name; false when there is none.
bool get(const Json& object, const char* name, uint64_t& target) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_unsigned()) return false;
  target = found->get<uint64_t>();
  return true;
}

Result<void> take_queues(const Json& document, GuestDocument& taken) {
  const auto queues = document.find("queues");
  if (queues == document.end() || !queues->is_array()) return malformed("no queues");
  for (const Json& queue : *queues) {
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t requests = 0;
    uint64_t kicks = 0;
    uint64_t batches = 0;
    uint64_t behind_ns = 0;
    if (!queue.is_object() || !get(queue, "reads", reads) || !get(queue, "writes", writes) ||
        !get(queue, "requests", requests) || !get(queue, "kicks", kicks) ||
        !get(queue, "batches", batches) || !get(queue, "behind_ns", behind_ns))
      return malformed("a queue lacks a number");
    taken.reads += reads;
    taken.writes += writes;
    taken.requests += requests;
    taken.kicks += kicks;
    taken.batches += batches;
    taken.behind_ns += static_cast<int64_t>(behind_ns);
  }
  return {};
}

Result<void> take_latency(const Json& document, GuestDocument& taken) {
  const auto latency = document.find("latency");
  if (latency == document.end() || !latency->is_object()) return malformed("no latency");
  uint64_t count = 0;
  uint64_t sum_ns = 0;
  uint64_t max_ns = 0;
  if (!get(*latency, "count", count) || !get(*latency, "sum_ns", sum_ns) ||
      !get(*latency, "max_ns", max_ns))
    return malformed("latency lacks a number");
  const auto buckets = latency->find("buckets");
  if (buckets == latency->end() || !buckets->is_array() || buckets->size() % 2 != 0)
    return malformed("latency lacks its buckets");
  uint64_t left = count;
  for (size_t i = 0; i < buckets->size(); i += 2) {
    const Json& bucket = (*buckets)[i];
    const Json& times = (*buckets)[i + 1];
    if (!bucket.is_number_unsigned() || !times.is_number_unsigned() ||
        bucket.get<uint64_t>() >= DriverHistogram::kBuckets || times.get<uint64_t>() > left)
      return malformed("a bucket that cannot be");
    left -= times.get<uint64_t>();
    const bool last = i + 2 == buckets->size();
    // The slowest one is known exactly.
    const uint64_t in_bucket = times.get<uint64_t>() - (last ? 1 : 0);
    if (times.get<uint64_t>() == 0) return malformed("an empty bucket");
    const uint64_t highest = DriverHistogram::highest_in(bucket.get<size_t>());
    taken.latency.record_many(static_cast<int64_t>(std::min(highest, max_ns)), in_bucket);
    if (last) taken.latency.record(static_cast<int64_t>(max_ns));
  }
  if (left != 0) return malformed("buckets that do not add up");
  if (count != 0) taken.mean_ns = static_cast<double>(sum_ns) / static_cast<double>(count);
  return {};
}

double per(double value, uint64_t count) {
  return count == 0 ? 0 : value / static_cast<double>(count);
}

}  // namespace

Result<GuestDocument> parse_guest_document(std::string_view text) {
  const Json document = Json::parse(text, nullptr, false);
  constexpr size_t kShown = 200;
  if (!document.is_object())
    return malformed("no JSON object: " + std::string(text.substr(0, kShown)));
  if (const auto error = document.find("error"); error != document.end() && error->is_string()) {
    std::string message = "The guest says: " + error->get<std::string>();
    for (const char* fact : {"sector", "queue", "vector", "code", "rip", "address"})
      if (uint64_t value = 0; get(document, fact, value))
        message += std::string(", ") + fact + " " + std::to_string(value);
    return Error(ErrorKind::kIo, message);
  }
  GuestDocument taken;
  uint64_t ran_ns = 0;
  if (!get(document, "ran_ns", ran_ns) || !get(document, "features", taken.features) ||
      !get(document, "interrupts", taken.interrupts) || !get(document, "halts", taken.halts))
    return malformed("a number is missing");
  taken.ran_ns = static_cast<int64_t>(ran_ns);
  SKIFF_RETURN_IF_ERROR(take_queues(document, taken));
  SKIFF_RETURN_IF_ERROR(take_latency(document, taken));
  return taken;
}

bool is_vcpu_thread(std::string_view name) {
  return name.starts_with("vcpu") || name.starts_with("CPU ");
}

double GuestSample::iops() const {
  return seconds > 0 ? static_cast<double>(guest.reads + guest.writes) / seconds : 0;
}

double GuestSample::cpu_ns_per_request() const {
  double cpu_ns = 0;
  for (const ThreadUsage& thread : threads) cpu_ns += static_cast<double>(thread.cpu_ns);
  return per(cpu_ns, guest.requests);
}

double GuestSample::io_cpu_ns_per_request() const {
  double cpu_ns = 0;
  for (const ThreadUsage& thread : threads)
    if (!is_vcpu_thread(thread.name)) cpu_ns += static_cast<double>(thread.cpu_ns);
  return per(cpu_ns, guest.requests);
}

double GuestSample::vcpu_host_ns_per_request() const {
  double cpu_ns = 0;
  for (const ThreadUsage& thread : threads)
    if (is_vcpu_thread(thread.name))
      cpu_ns += std::max<double>(0, static_cast<double>(thread.cpu_ns - thread.guest_ns));
  return per(cpu_ns, guest.requests);
}

double GuestSample::sleeps_per_request() const {
  double sleeps = 0;
  for (const ThreadUsage& thread : threads) sleeps += static_cast<double>(thread.sleeps);
  return per(sleeps, guest.requests);
}

GuestSummary summarise(const GuestResult& result) {
  GuestSummary summary;
  const auto spread = [&result](auto value_of) {
    std::vector<double> values;
    for (const GuestSample& round : result.rounds) values.push_back(value_of(round));
    return spread_of(std::move(values));
  };
  using Sample = const GuestSample&;
  summary.iops = spread([](Sample s) { return s.iops(); });
  summary.p50_ns =
      spread([](Sample s) { return static_cast<double>(s.guest.latency.percentile_ns(50)); });
  summary.mean_ns = spread([](Sample s) { return s.guest.mean_ns; });
  summary.cpu_ns = spread([](Sample s) { return s.cpu_ns_per_request(); }).median;
  summary.io_cpu_ns = spread([](Sample s) { return s.io_cpu_ns_per_request(); }).median;
  summary.vcpu_host_ns = spread([](Sample s) { return s.vcpu_host_ns_per_request(); }).median;
  summary.sleeps = spread([](Sample s) { return s.sleeps_per_request(); }).median;
  const auto each = [](uint64_t count, Sample s) {
    return per(static_cast<double>(count), s.guest.requests);
  };
  summary.kicks = spread([&](Sample s) { return each(s.guest.kicks, s); }).median;
  summary.interrupts = spread([&](Sample s) { return each(s.guest.interrupts, s); }).median;
  summary.boot_ms = spread([](Sample s) { return static_cast<double>(s.boot_ns) / 1e6; }).median;
  for (const GuestSample& round : result.rounds) {
    summary.latency.merge(round.guest.latency);
    summary.behind_ns += round.guest.behind_ns;
  }
  return summary;
}

}  // namespace skiff::vmm
