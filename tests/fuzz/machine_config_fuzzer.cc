// SPDX-License-Identifier: GPL-2.0-or-later
// What the user says of the machine, as one option's text or as a JSON file, fed with anything.
// What must hold: no crash, and an error has a message.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "loop/check.h"
#include "loop/result.h"
#include "vmm/config/config_file.h"
#include "vmm/config/machine_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  skiff::vmm::MachineConfig config;
  const auto options = skiff::vmm::machine_options();
  // The last choice is the file; a disk is what has the most to parse, and gets half of the rest.
  const auto choice = input.ConsumeIntegralInRange<size_t>(0, 2 * options.size());
  const std::string text = input.ConsumeRemainingBytesAsString();
  const auto apply = [&]() -> skiff::loop::Result<void> {
    if (choice == 2 * options.size()) return skiff::vmm::apply_config_text(config, text);
    for (const auto& option : options) {
      const bool wanted =
          choice < options.size() ? &option == &options[choice] : option.name == "disk";
      if (wanted) return skiff::vmm::apply_option(config, option, std::string_view(text));
    }
    return {};
  };
  const auto applied = apply();
  if (!applied) SKIFF_CHECK(!applied.error().message().empty());
  (void)skiff::vmm::validate(config);
  (void)skiff::vmm::uses_stdio(config);
  return 0;
}
