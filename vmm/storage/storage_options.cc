// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/storage/storage_options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "block/error_policy.h"
#include "loop/result.h"
#include "vmm/config/machine_config.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// The options of `skiff run` that mean the same here.
Result<void> apply(MachineConfig& config, std::string_view option, const std::string& text) {
  const auto found = std::ranges::find(machine_options(), option, &OptionInfo::name);
  return apply_option(config, *found, text);
}

Result<void> check_disk(const DiskConfig& disk) {
  const auto refuse = [&](std::string_view what) {
    return Error(ErrorKind::kInvalidArgument, fmt::format("disk {}: {}", disk.path, what));
  };
  if (!disk.vhost_user.empty()) return refuse("vhost-user= is for skiff run; give path=");
  const auto stops = [](block::ErrorPolicy policy) {
    return policy == block::ErrorPolicy::kStop || policy == block::ErrorPolicy::kEnospc;
  };
  if (stops(disk.errors.read) || stops(disk.errors.write))
    return refuse(
        "rerror and werror can be report or ignore here: the machine that could stop is another "
        "process's");
  if (disk.submit == DiskSubmit::kVcpu)
    return refuse("submit=vcpu: the vCPUs are another process's; give auto, iothread or poll");
  return {};
}

}  // namespace

Result<StorageOptions> parse_storage(const StorageWords& words) {
  MachineConfig config;
  for (const std::string& text : words.iothreads)
    SKIFF_RETURN_IF_ERROR(apply(config, "iothread", text));
  for (const std::string& text : words.disks) SKIFF_RETURN_IF_ERROR(apply(config, "disk", text));
  if (!words.workers.empty()) SKIFF_RETURN_IF_ERROR(apply(config, "workers", words.workers));
  if (!words.log.empty()) SKIFF_RETURN_IF_ERROR(apply(config, "log", words.log));
  if (words.sockets.size() != words.disks.size())
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("{} sockets for {} disks: each --disk needs a --socket of its own, in "
                             "the same order",
                             words.sockets.size(), words.disks.size()));
  SKIFF_RETURN_IF_ERROR(validate_iothreads(config.iothreads));
  StorageOptions options;
  for (size_t i = 0; i < words.disks.size(); ++i) {
    SKIFF_RETURN_IF_ERROR(check_disk(config.disks[i]));
    SKIFF_RETURN_IF_ERROR(validate_disk(config.disks[i], config.iothreads));
    options.exports.push_back({words.sockets[i], std::move(config.disks[i])});
  }
  options.iothreads = std::move(config.iothreads);
  options.workers = config.workers;
  options.log_level = config.log_level;
  return options;
}

}  // namespace skiff::vmm
