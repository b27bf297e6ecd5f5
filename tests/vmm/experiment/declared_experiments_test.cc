// SPDX-License-Identifier: GPL-2.0-or-later
// The experiments of docs/experiments: each can be read, and has a page that explains it.
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "vmm/experiment/experiment_plan.h"

namespace skiff::vmm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kExperiments = 7;

TEST(DeclaredExperiments, AreValidAndExplained) {
  size_t found = 0;
  for (const auto& entry : fs::directory_iterator(SKIFF_SOURCE_DIR "/docs/experiments")) {
    if (entry.path().extension() != ".json") continue;
    ++found;
    std::ifstream file(entry.path());
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto plan = parse_experiment(text);
    ASSERT_TRUE(plan) << entry.path() << ": " << plan.error().message();
    EXPECT_EQ(plan->name, entry.path().stem().string());
    EXPECT_FALSE(plan->question.empty()) << entry.path();
    std::map<std::string, std::string> paths;
    for (const ExperimentFile& declared : plan->files) paths[declared.name] = "/tmp/x";
    const auto cells = expand_experiment(*plan, paths);
    EXPECT_TRUE(cells) << entry.path() << ": " << cells.error().message();
    EXPECT_TRUE(fs::exists(fs::path(entry.path()).replace_extension(".md"))) << entry.path();
  }
  EXPECT_EQ(found, kExperiments);
}

}  // namespace
}  // namespace skiff::vmm
