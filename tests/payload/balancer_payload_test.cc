// SPDX-License-Identifier: GPL-2.0-or-later
// Queues of a guest move from one IOThread to another while it reads and writes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "loop/cpu_set.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"
#include "tests/temp_dir.h"
#include "vmm/bench/driver/disk_pattern.h"

namespace skiff::payload {
namespace {

using guest::ControlClient;
using guest::SkiffProcess;
using Json = nlohmann::json;

constexpr size_t kDiskBytes = size_t{4} << 20;
constexpr size_t kQueues = 4;

std::vector<uint32_t> usable_cpus() {
  const auto set = loop::CpuSet::of_process();
  EXPECT_TRUE(set);
  std::vector<uint32_t> cpus;
  for (uint32_t cpu = 0; set && cpus.size() < set->count(); ++cpu)
    if (set->contains(cpu)) cpus.push_back(cpu);
  return cpus;
}

// Children that are started meanwhile may run on this CPU only.
class OnOneCpu {
 public:
  explicit OnOneCpu(uint32_t cpu) {
    const auto before = loop::CpuSet::of_current_thread();
    EXPECT_TRUE(before);
    if (before) before_ = *before;
    loop::CpuSet one;
    one.add(cpu);
    EXPECT_TRUE(one.apply_to_current_thread());
  }
  ~OnOneCpu() { EXPECT_TRUE(before_.apply_to_current_thread()); }
  OnOneCpu(const OnOneCpu&) = delete;
  OnOneCpu& operator=(const OnOneCpu&) = delete;

 private:
  loop::CpuSet before_;
};

// The queues of the disk as `status` has them; empty when nobody answers any more.
Json queues_of(ControlClient& control) {
  const Json status = Json::parse(control.ask("status"), nullptr, /*allow_exceptions=*/false);
  const Json::json_pointer where("/disks/0/queues");
  return status.contains(where) ? status[where] : Json::array();
}

// vCPUs and io0 share a CPU, io1 has another: serving the guest from there is cheaper by what
// taking turns costs. So the two queues that begin on io0 are to follow the others.
TEST(Balancer, MovesQueuesAwayFromTheCpuOfTheirVcpusUnderLoad) {
  const std::vector<uint32_t> cpus = usable_cpus();
  if (cpus.size() < 2) GTEST_SKIP() << "needs two CPUs";
  TempDir dir;
  std::vector<std::byte> bytes(kDiskBytes);
  vmm::fill_pattern(bytes.data(), bytes.size(), 0);
  const std::string disk = dir.make_file("pattern.img", bytes);
  const guest::ScratchPath socket("control");
  std::optional<OnOneCpu> pinned(cpus[0]);
  SkiffProcess skiff({"bench",
                      "guest",
                      disk,
                      "--cpus",
                      "2",
                      "--queues",
                      std::to_string(kQueues),
                      "--submit",
                      "iothread",
                      "--completion",
                      "irq",
                      "--rate",
                      "500",
                      "--rw",
                      "randrw",
                      "--verify",
                      "--overwrite",
                      "--floor",
                      "none",
                      "--duration",
                      "4",
                      "--json",
                      "--disk-keys",
                      "iothreads=io0:io1",
                      "--skiff-arg",
                      "--iothread",
                      "--skiff-arg",
                      "id=io0,cpus=" + std::to_string(cpus[0]),
                      "--skiff-arg",
                      "--iothread",
                      "--skiff-arg",
                      "id=io1,cpus=" + std::to_string(cpus[1]),
                      "--skiff-arg",
                      "--control",
                      "--skiff-arg",
                      socket.path()});
  pinned.reset();
  ControlClient control(socket.path());
  Json queues = queues_of(control);
  ASSERT_EQ(queues.size(), kQueues);
  const auto has_moved = [&queues](size_t queue) {
    return queues[queue]["home"] == "io1" && queues[queue]["moves"] > 0;
  };
  while (queues.size() == kQueues && !(has_moved(0) && has_moved(2))) queues = queues_of(control);
  ASSERT_EQ(queues.size(), kQueues) << "the guest ended before its queues had moved";
  EXPECT_GT(queues[0]["requests"], 0);
  for (const size_t stayed : {size_t{1}, size_t{3}}) EXPECT_EQ(queues[stayed]["home"], "io1");

  const guest::Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(outcome.out.find("\"error\"") == std::string::npos) << outcome.out;
  const auto after = dir.read_file("pattern.img");
  EXPECT_TRUE(vmm::is_pattern(after.data(), after.size(), 0));
}

}  // namespace
}  // namespace skiff::payload
