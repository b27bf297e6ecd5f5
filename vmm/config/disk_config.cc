// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/disk_config.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "block/error_policy.h"
#include "block/filters/fault_rules.h"
#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "block/units.h"
#include "loop/result.h"
#include "vmm/config/field_values.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint64_t kYearSeconds = 31'536'000;
constexpr uint64_t kPollUsMax = 10'000;
constexpr size_t kIdBytesMax = 15;  // What a thread's name can be.

constexpr std::array<std::pair<std::string_view, DiskSubmit>, 4> kSubmits = {
    {{"auto", DiskSubmit::kAuto},
     {"iothread", DiskSubmit::kIothread},
     {"vcpu", DiskSubmit::kVcpu},
     {"poll", DiskSubmit::kPoll}}};

Error invalid(std::string message) {
  return Error(ErrorKind::kInvalidArgument, std::move(message));
}

bool assign_engine(block::IoEngineKind& target, std::string_view text) {
  const auto kind = block::parse_engine(text);
  if (kind) target = *kind;
  return kind.has_value();
}

bool assign_error_policy(block::ErrorPolicy& target, std::string_view text) {
  const auto policy = block::parse_error_policy(text);
  if (policy) target = *policy;
  return policy.has_value();
}

bool assign_rate(uint64_t& target, std::optional<uint64_t> value) {
  return assign(target, value) && target > 0;
}

bool assign_queues(uint32_t& target, std::string_view text) {
  if (text != "auto") return assign(target, parse_uint(text, 1, kDiskQueuesMax));
  target = 0;
  return true;
}

bool assign_queue_size(uint16_t& target, std::string_view text) {
  const auto size = parse_uint(text, 4, 1024);
  return size && std::has_single_bit(*size) && assign(target, size);
}

bool assign_map(QueueMap& target, std::string_view text) {
  target.kind = text == "auto"          ? QueueMap::Kind::kAuto
                : text == "round-robin" ? QueueMap::Kind::kRoundRobin
                                        : QueueMap::Kind::kList;
  return target.kind != QueueMap::Kind::kList || assign_words(target.iothreads, text);
}

// Names that mean something else in iothreads= or map= would be a trap.
bool assign_id(std::string& target, std::string_view text) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return text.size() <= kIdBytesMax && std::ranges::all_of(text, is_allowed) && text != "auto" &&
         text != "round-robin" && assign_text(target, text);
}

void add_throttle_fields(std::vector<Field>& fields, block::ThrottleLimits& limits) {
  using Rates = block::ThrottleLimits::Rates;
  constexpr std::array<std::tuple<std::string_view, std::string_view, uint64_t Rates::*>, 4> kIops =
      {{{"iops", "1 or more requests a second", &Rates::total},
        {"iops-read", "1 or more reads a second", &Rates::read},
        {"iops-write", "1 or more writes a second", &Rates::write},
        {"iops-burst", "1 or more requests", &Rates::burst}}};
  constexpr std::array<std::tuple<std::string_view, std::string_view, uint64_t Rates::*>, 4> kBps =
      {{{"bps", "bytes a second like 100M", &Rates::total},
        {"bps-read", "bytes a second like 100M", &Rates::read},
        {"bps-write", "bytes a second like 100M", &Rates::write},
        {"bps-burst", "bytes like 16M", &Rates::burst}}};
  for (const auto& [name, allowed, member] : kIops)
    fields.push_back({name, allowed, [&target = limits.requests.*member](std::string_view text) {
                        return assign_rate(target, parse_uint(text, 1, 1'000'000'000));
                      }});
  for (const auto& [name, allowed, member] : kBps)
    fields.push_back({name, allowed, [&target = limits.bytes.*member](std::string_view text) {
                        return assign_rate(target, block::parse_bytes(text));
                      }});
}

// Where the disk's requests are served.
void add_placement_fields(std::vector<Field>& fields, DiskConfig& disk) {
  const std::vector<Field> placement = {
      {"queues", "auto or 1 to 255", [&](auto text) { return assign_queues(disk.queues, text); }},
      {"queue-size", "a power of two from 4 to 1024",
       [&](auto text) { return assign_queue_size(disk.queue_size, text); }},
      {"submit", "auto, iothread, vcpu or poll",
       [&](auto text) { return assign_enum<DiskSubmit>(disk.submit, text, kSubmits); }},
      {"iothreads", "ids of --iothread like io0:io1",
       [&](auto text) { return assign_words(disk.iothreads, text); }},
      {"map", "auto, round-robin or an id of --iothread for each queue like io0:io1:io0",
       [&](auto text) { return assign_map(disk.map, text); }},
      {"steer", "auto or off",
       [&](auto text) {
         disk.steer = text == "auto";
         return disk.steer || text == "off";
       }},
      {"discard", kSwitchValues, [&](auto text) { return assign_switch(disk.discard, text); }},
  };
  fields.insert(fields.end(), placement.begin(), placement.end());
}

Result<void> check_placement(const DiskConfig& disk) {
  if (disk.submit == DiskSubmit::kVcpu && !disk.iothreads.empty())
    return invalid(
        "disk: submit=vcpu and iothreads= exclude each other: the vCPUs submit, no IOThread does");
  if (disk.submit == DiskSubmit::kVcpu && disk.map.kind != QueueMap::Kind::kAuto)
    return invalid(
        "disk: submit=vcpu and map= exclude each other: queues belong to vCPUs, not to IOThreads");
  if (disk.queues != 0 && disk.map.iothreads.size() > disk.queues)
    return invalid(fmt::format("disk: map= names {} IOThreads for queues={}",
                               disk.map.iothreads.size(), disk.queues));
  if (disk.map.kind != QueueMap::Kind::kList || disk.iothreads.empty()) return {};
  for (const std::string& id : disk.map.iothreads)
    if (std::ranges::find(disk.iothreads, id) == disk.iothreads.end())
      return invalid(fmt::format("disk: map= names \"{}\", which iothreads= leaves out", id));
  return {};
}

// What is served elsewhere is set up there.
Result<void> check_vhost_user(const std::vector<KeyValue>& pairs) {
  constexpr std::array<std::string_view, 4> kAllowed = {"vhost-user", "queues", "queue-size",
                                                        "bus"};
  for (const KeyValue& pair : pairs)
    if (std::ranges::find(kAllowed, pair.key) == kAllowed.end())
      return invalid(
          fmt::format("disk: {}= is the back end's business with vhost-user= (queues=, "
                      "queue-size= and bus= are ours)",
                      pair.key));
  return {};
}

}  // namespace

std::string_view disk_submit_name(DiskSubmit submit) {
  return std::ranges::find(kSubmits, submit, &decltype(kSubmits)::value_type::second)->first;
}

std::optional<DiskSubmit> parse_disk_submit(std::string_view name) {
  DiskSubmit submit = DiskSubmit::kAuto;
  if (!assign_enum<DiskSubmit>(submit, name, kSubmits)) return std::nullopt;
  return submit;
}

Result<DiskConfig> parse_disk(const std::vector<KeyValue>& pairs) {
  DiskConfig disk;
  std::optional<Error> fault_error;  // Says more than what is allowed.
  const auto assign_faults = [&](std::string_view text) {
    auto rules = block::FaultRules::parse(text);
    if (!rules) fault_error = rules.error().with_context("disk");
    if (rules) disk.faults = *std::move(rules);
    return disk.faults.has_value();
  };
  std::vector<Field> fields = {
      Field{"path", "a file, a block device, an NBD URL, or null:size=SIZE[,,latency=TIME]",
            [&](auto text) { return assign_text(disk.path, text); }},
      Field{"vhost-user", "the socket of a vhost-user-blk back end",
            [&](auto text) { return assign_text(disk.vhost_user, text); }},
      Field{"format", "raw", [&](auto text) { return disk.format_given = (text == "raw"); }},
      Field{"readonly", kSwitchValues,
            [&](auto text) { return assign_switch(disk.readonly, text); }},
      Field{"direct", kSwitchValues, [&](auto text) { return assign_switch(disk.direct, text); }},
      Field{"engine", "auto, sync, worker, threads, posix-aio, linux-aio or io_uring",
            [&](auto text) { return assign_engine(disk.engine, text); }},
      Field{"serial", "1 to 20 characters",
            [&](auto text) { return text.size() <= 20 && assign_text(disk.serial, text); }},
      Field{"rerror", block::kErrorPolicyNames,
            [&](auto text) { return assign_error_policy(disk.errors.read, text); }},
      Field{"werror", block::kErrorPolicyNames,
            [&](auto text) { return assign_error_policy(disk.errors.write, text); }},
      Field{"reconnect-delay", "0 to 31536000 seconds that requests wait for an NBD server",
            [&](auto text) {
              return assign(disk.nbd.reconnect_delay_s, parse_uint(text, 0, kYearSeconds));
            }},
      Field{"reply-timeout", "0 (never) to 31536000 seconds until an NBD server counts as gone",
            [&](auto text) {
              return assign(disk.nbd.reply_timeout_s, parse_uint(text, 0, kYearSeconds));
            }},
      Field{"fault", "rules like op=write:at=1M+64K:error=EIO", assign_faults},
      Field{"bus", "pci or mmio",
            [&](auto text) { return assign_enum<DeviceBus>(disk.bus, text, kBusNames); }},
  };
  add_placement_fields(fields, disk);
  add_throttle_fields(fields, disk.throttle);
  if (auto applied = apply_fields("disk", pairs, fields); !applied)
    return fault_error.value_or(applied.error());
  if (!disk.vhost_user.empty()) {
    SKIFF_RETURN_IF_ERROR(check_vhost_user(pairs));
  } else if (disk.path.empty()) {
    return invalid("disk: no path (write --disk path=FILE)");
  }
  SKIFF_RETURN_IF_ERROR(check_placement(disk));
  return disk;
}

Result<IothreadConfig> parse_iothread(const std::vector<KeyValue>& pairs) {
  IothreadConfig thread;
  uint32_t poll_max_us = 0;
  const std::array fields = {
      Field{"id", "1 to 15 letters, digits, '-', '_' and '.', but not \"auto\"",
            [&](auto text) { return assign_id(thread.id, text); }},
      Field{"cpus", kCpuListValues, [&](auto text) { return assign_cpus(thread.cpus, text); }},
      Field{"sched", kSchedValues, [&](auto text) { return assign_sched(thread.sched, text); }},
      Field{"poll-max-us", "0 (never) to 10000 microseconds",
            [&](auto text) {
              if (!assign(poll_max_us, parse_uint(text, 0, kPollUsMax))) return false;
              thread.poll_max_us = poll_max_us;
              return true;
            }},
  };
  SKIFF_RETURN_IF_ERROR(apply_fields("iothread", pairs, fields));
  if (thread.id.empty()) return invalid("iothread: no id (write --iothread id=io0)");
  return thread;
}

Result<void> validate_disk(const DiskConfig& disk, std::span<const IothreadConfig> iothreads) {
  const auto find = [&](const std::string& id) -> Result<const IothreadConfig*> {
    const auto found = std::ranges::find(iothreads, id, &IothreadConfig::id);
    if (found != iothreads.end()) return &*found;
    std::string known;
    for (const IothreadConfig& thread : iothreads)
      known.append(known.empty() ? "" : ", ").append(thread.id);
    return invalid(fmt::format(
        "disk {}: no IOThread \"{}\" ({}add --iothread id={})", disk.path, id,
        known.empty() ? "" : fmt::format("there are {}; name one of them or ", known), id));
  };
  std::vector<std::string> named = disk.iothreads;
  named.insert(named.end(), disk.map.iothreads.begin(), disk.map.iothreads.end());
  // A disk that names none may use all.
  if (named.empty())
    for (const IothreadConfig& thread : iothreads) named.push_back(thread.id);
  for (size_t i = 0; i < named.size(); ++i) {
    auto thread = find(named[i]);
    if (!thread) return thread.error();
    if (i < disk.iothreads.size() && std::ranges::count(disk.iothreads, named[i]) > 1)
      return invalid(fmt::format("disk {}: iothreads= names \"{}\" twice", disk.path, named[i]));
    if (disk.submit == DiskSubmit::kPoll && (*thread)->poll_max_us == 0u)
      return invalid(fmt::format(
          "disk {}: submit=poll on IOThread \"{}\", which poll-max-us=0 keeps from polling",
          disk.path, named[i]));
  }
  return {};
}

Result<void> validate_iothreads(std::span<const IothreadConfig> iothreads) {
  if (iothreads.size() > kIothreadsMax)
    return invalid(fmt::format("iothread: at most {} IOThreads", kIothreadsMax));
  for (const IothreadConfig& thread : iothreads)
    if (std::ranges::count(iothreads, thread.id, &IothreadConfig::id) > 1)
      return invalid(fmt::format("iothread: id \"{}\" is given twice", thread.id));
  return {};
}

}  // namespace skiff::vmm
