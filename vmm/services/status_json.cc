// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/services/status_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vmm/disk_activity.h"

namespace skiff::vmm {
namespace {

using Json = nlohmann::json;

Json latency_json(const std::vector<LatencySummary>& latency) {
  Json object = Json::object();
  for (const LatencySummary& summary : latency)
    object[std::string(summary.name)] = {
        {"count", summary.count}, {"p50_ns", summary.p50_ns}, {"p99_ns", summary.p99_ns}};
  return object;
}

Json queue_json(const QueueStatus& queue) {
  return {{"mode", queue.mode},
          {"home", queue.home},
          {"why", queue.why},
          {"requests", queue.requests},
          {"batches", queue.batches},
          {"kicks", queue.kicks},
          {"interrupts", queue.interrupts},
          {"moves", queue.moves},
          {"moves_last_minute", queue.moves_last_minute},
          {"completed_on_submitter", queue.on_submitter},
          {"completed_on_target", queue.on_target},
          {"completed_elsewhere", queue.elsewhere}};
}

}  // namespace

void add_activity(Json& json, const DiskActivity& activity) {
  if (activity.queues.empty()) return;
  Json queues = Json::array();
  for (const QueueStatus& queue : activity.queues) queues.push_back(queue_json(queue));
  json["submit"] = activity.submit;
  json["queues"] = std::move(queues);
  json["latency"] = latency_json(activity.latency);
  json["stages"] = latency_json(activity.stages);
}

}  // namespace skiff::vmm
