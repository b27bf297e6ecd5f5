// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "vmm/experiment/simulator/simulation_options.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;
using Task = ExperimentOptions::Task;

std::string error_of(const ExperimentWords& words) {
  const auto options = parse_experiment_words(words);
  return options ? "no error" : options.error().message();
}

TEST(ExperimentOptions, OneTaskAtATime) {
  EXPECT_EQ(parse_experiment_words({.path = "e.json"})->task, Task::kRun);
  EXPECT_EQ(parse_experiment_words({.path = "e.json", .list = true})->task, Task::kList);
  const auto compare = parse_experiment_words({.compare = {"a.json", "b.json"}});
  EXPECT_EQ(compare->task, Task::kCompare);
  EXPECT_EQ(compare->before, "a.json");
  EXPECT_EQ(compare->after, "b.json");
  EXPECT_EQ(parse_experiment_words({.simulate = "vcpus=2"})->task, Task::kSimulate);
  EXPECT_THAT(error_of({}), HasSubstr("--compare"));
  EXPECT_THAT(error_of({.path = "e.json", .simulate = "vcpus=2"}), HasSubstr("either"));
  EXPECT_THAT(error_of({.path = "e.json", .costs = "c.json"}), HasSubstr("--costs"));
}

TEST(ExperimentOptions, WrongNumbersAndFilesAreNamed) {
  EXPECT_THAT(error_of({.path = "e", .rounds = "0"}), HasSubstr("--rounds 0: allowed: 1 to 1000"));
  EXPECT_THAT(error_of({.path = "e", .seed = "x"}), HasSubstr("--seed x"));
  EXPECT_THAT(error_of({.path = "e", .files = {"disk"}}), HasSubstr("NAME=PATH"));
  EXPECT_THAT(error_of({.path = "e", .files = {"a=b", "a=c"}}), HasSubstr("once"));
  const auto options = parse_experiment_words({.path = "e", .seed = "7", .files = {"a=b=c"}});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->files.at("a"), "b=c");
  EXPECT_EQ(*options->seed, 7u);
}

TEST(SimulationOptions, EveryKeyIsTaken) {
  const auto options = parse_simulation(
      "vcpus=8,cores=16,l3=4,iothreads=2,rate=100,latency=5us,guest=0,busy=on,duration=50ms,"
      "check=off");
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->vcpus, 8u);
  EXPECT_EQ(options->cores, 16u);
  EXPECT_EQ(options->l3_cores, 4u);
  EXPECT_EQ(options->iothreads, 2u);
  EXPECT_EQ(options->rate, 100u);
  EXPECT_EQ(options->latency_ns, 5000);
  EXPECT_EQ(options->guest_ns, 0);
  EXPECT_TRUE(options->busy_guest);
  EXPECT_EQ(options->duration_ns, 50'000'000);
  EXPECT_FALSE(options->check);
}

TEST(SimulationOptions, WrongOnesAreNamed) {
  const auto error = [](const char* text) {
    const auto options = parse_simulation(text);
    return options ? std::string("no error") : options.error().message();
  };
  EXPECT_THAT(error("vcpus=0"), HasSubstr("1 to 1024"));
  EXPECT_THAT(error("cpus=1"), HasSubstr("vcpus"));
  EXPECT_THAT(error("latency=5"), HasSubstr("30us"));
  EXPECT_THAT(error("64"), HasSubstr("KEY=VALUE"));
}

}  // namespace
}  // namespace skiff::vmm
