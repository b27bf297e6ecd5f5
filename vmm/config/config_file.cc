// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/config_file.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/file.h"
#include "loop/result.h"
#include "vmm/config/machine_config.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Json = nlohmann::json;
using Pairs = std::vector<KeyValue>;

constexpr uint64_t kConfigBytesMax = uint64_t{1} << 20;

Error not_allowed(std::string_view key, const Json& value, std::string_view allowed) {
  constexpr auto kReplace = Json::error_handler_t::replace;
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("{}: {} is not possible (allowed: {})", key,
                           value.dump(-1, ' ', false, kReplace), allowed));
}

// The text that the command line would have, or nothing for what has none.
std::optional<std::string> scalar_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "on" : "off";
  if (value.is_number_unsigned()) return std::to_string(value.get<uint64_t>());
  return std::nullopt;
}

Result<void> apply_object(MachineConfig& config, const OptionInfo& option, const Json& object) {
  Pairs pairs;
  for (const auto& [key, value] : object.items()) {
    std::string text;
    if (value.is_array()) {
      // A list in a file is what stands between colons on the command line.
      for (const Json& element : value) {
        const auto part = scalar_text(element);
        if (!part) return not_allowed(key, value, "a list of strings or numbers");
        text += (text.empty() ? "" : ":") + *part;
      }
    } else {
      const auto scalar = scalar_text(value);
      if (!scalar)
        return not_allowed(fmt::format("{}.{}", option.name, key), value,
                           "a string, a whole number, true or false");
      text = *scalar;
    }
    pairs.push_back({key, text});
  }
  return apply_option(config, option, pairs);
}

Result<void> apply_value(MachineConfig& config, const OptionInfo& option, const Json& value) {
  if (option.form == OptionForm::kFlag) {
    if (!value.is_boolean()) return not_allowed(option.name, value, "true or false");
    return apply_option(config, option, value.get<bool>() ? "on" : "off");
  }
  if (option.form == OptionForm::kPairs && value.is_object())
    return apply_object(config, option, value);
  if (value.is_string() || value.is_number_unsigned())
    return apply_option(config, option, *scalar_text(value));
  return not_allowed(
      option.name, value,
      option.form == OptionForm::kPairs ? "a string, a whole number or an object" : "a string");
}

std::string option_names() {
  std::string names;
  for (const OptionInfo& option : machine_options())
    names.append(names.empty() ? "" : ", ").append(option.name);
  return names;
}

}  // namespace

Result<void> apply_config_text(MachineConfig& config, std::string_view json) {
  const Json root =
      Json::parse(json, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (root.is_discarded())
    return Error(ErrorKind::kInvalidArgument,
                 "This is not JSON (look for a missing comma or brace)");
  if (!root.is_object())
    return Error(ErrorKind::kInvalidArgument,
                 "The outermost value must be an object: {\"kernel\": ...}");

  for (const auto& [key, value] : root.items()) {
    const auto options = machine_options();
    const auto option = std::ranges::find(options, key, &OptionInfo::name);
    if (option == options.end())
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("Unknown key \"{}\" (allowed: {})", key, option_names()));
    if (!value.is_array()) {
      SKIFF_RETURN_IF_ERROR(apply_value(config, *option, value));
      continue;
    }
    if (!option->repeatable) return not_allowed(key, value, "a single value, no list");
    for (const Json& element : value) SKIFF_RETURN_IF_ERROR(apply_value(config, *option, element));
  }
  return {};
}

Result<void> apply_config_file(MachineConfig& config, const std::string& path) {
  auto text = loop::read_file(path, kConfigBytesMax);
  if (!text) return text.error().with_context("Configuration file");
  const std::string_view view(reinterpret_cast<const char*>(text->data()), text->size());
  auto applied = apply_config_text(config, view);
  if (!applied) return applied.error().with_context("Configuration file", path);
  return {};
}

}  // namespace skiff::vmm
