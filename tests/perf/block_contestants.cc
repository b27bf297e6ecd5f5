// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/perf/block_contestants.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/perf/child_process.h"

namespace skiff::perf {
namespace {

using Command = std::vector<std::string>;
using Json = nlohmann::json;

std::optional<std::string> read_output(const std::string& name, const Command& command,
                                       Sample* sample = nullptr) {
  Output output = run_and_read(command);
  if (sample != nullptr) *sample = output.sample;
  if (output.sample.status == 0) return std::move(output.text);
  std::fprintf(stderr, "%s: failed with status %d\n", name.c_str(), output.sample.status);
  return std::nullopt;
}

// What it takes a program to come and go. The least of several: other work only adds to it.
int64_t cpu_of_start_ns(const std::string& name, const Command& idle) {
  constexpr int kTries = 7;
  int64_t least_ns = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < kTries; ++i) {
    Sample sample;
    if (!read_output(name, idle, &sample)) return 0;
    least_ns = std::min(least_ns, sample.cpu_ns);
  }
  return least_ns;
}

// fio says things before its JSON at times.
Json json_in(const std::string& text) {
  const size_t begin = std::min(text.find_first_of("{["), text.size());
  return Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin), text.end(), nullptr, false);
}

class SkiffContestant final : public BlockContestant {
 public:
  SkiffContestant(std::string program, std::string engine, std::string name)
      : program_(std::move(program)), engine_(std::move(engine)), name_(std::move(name)) {}

  std::string name() const override { return name_; }
  bool can(const BlockCell&) const override { return true; }
  std::optional<BlockSample> run(const BlockCell& cell, double seconds) override {
    Command command = {program_,     "bench",
                       "disk",       cell.path.empty() ? "null:size=1G" : cell.path,
                       "--rw",       cell.random ? "randread" : "read",
                       "--depth",    std::to_string(cell.depth),
                       "--engine",   engine_,
                       "--duration", fmt::format("{}", seconds),
                       "--json"};
    // linux-aio is refused without it, on the null device as well.
    command.emplace_back("--direct");
    const auto text = read_output(name_, command);
    if (!text) return std::nullopt;
    const Json json = json_in(*text);
    if (!json.is_array() || json.size() != 1) return std::nullopt;
    const Json& result = json[0];
    BlockSample sample{result.value("iops", 0.0), result.value("cpu_ns_per_io", 0.0), {}};
    if (result.contains("syscalls_per_io"))
      sample.syscalls_per_io = result["syscalls_per_io"].get<double>();
    return sample;
  }

 private:
  const std::string program_;
  const std::string engine_;
  const std::string name_;
};

class FioContestant final : public BlockContestant {
 public:
  FioContestant(std::string program, std::string engine)
      : program_(std::move(program)), engine_(std::move(engine)) {}

  std::string name() const override { return "fio " + engine_; }
  bool can(const BlockCell& cell) const override {
    // psync has one request under way, whatever it is told.
    return !cell.path.empty() && (engine_ != "psync" || cell.depth == 1);
  }
  std::optional<BlockSample> run(const BlockCell& cell, double seconds) override {
    const auto text = read_output(name(), command(cell, seconds));
    if (!text) return std::nullopt;
    const Json json = json_in(*text);
    if (!json.is_object() || !json.contains("jobs")) return std::nullopt;
    const Json& job = json["jobs"][0];
    const Json& read = job["read"];
    const double ios = read.value("total_ios", 0.0);
    if (ios == 0) return std::nullopt;
    // Its own account, of the thread that submits: it comes and goes with far more work than that,
    // and not always as much. The kernel's io_uring workers are not in it.
    const double percent = job.value("usr_cpu", 0.0) + job.value("sys_cpu", 0.0);
    const double cpu_ns = percent / 100 * job.value("job_runtime", 0.0) * 1e6;
    return BlockSample{read.value("iops", 0.0), cpu_ns / ios, {}};
  }

 private:
  Command command(const BlockCell& cell, double seconds) const {
    Command command = {program_, "--name=b", "--filename=" + cell.path, "--ioengine=" + engine_,
                       cell.random ? "--rw=randread" : "--rw=read",
                       fmt::format("--iodepth={}", cell.depth), "--bs=4k", "--direct=1", "--thread",
                       "--norandommap", "--randrepeat=0", "--time_based",
                       // Whole numbers with units, no fractions.
                       fmt::format("--runtime={}ms", static_cast<int64_t>(seconds * 1000)),
                       "--output-format=json"};
    return command;
  }

  const std::string program_;
  const std::string engine_;
};

class QemuContestant final : public BlockContestant {
 public:
  QemuContestant(std::string program, std::string engine)
      : program_(std::move(program)), engine_(std::move(engine)) {}

  std::string name() const override { return "qemu-img " + engine_; }
  bool can(const BlockCell& cell) const override {
    return cell.path.empty() == (engine_ == "null-co");
  }
  std::optional<BlockSample> run(const BlockCell& cell, double seconds) override {
    const std::string key = fmt::format("{} {} {}", cell.path, cell.random, cell.depth);
    auto [known, first] = iops_.try_emplace(key, 0.0);
    if (first && !calibrate(cell, known->second)) return std::nullopt;
    const double count = std::max(1.0, known->second * seconds);
    Sample sample;
    const std::optional<double> took = bench(cell, static_cast<uint64_t>(count), sample);
    if (!took) return std::nullopt;
    known->second = count / *took;
    return BlockSample{
        known->second, static_cast<double>(sample.cpu_ns - start_cpu_ns_) / count, {}};
  }

 private:
  // It is told how many, not how long.
  bool calibrate(const BlockCell& cell, double& iops) {
    if (start_cpu_ns_ == 0) start_cpu_ns_ = cpu_of_start_ns(name(), command(cell, 1));
    Sample sample;
    for (uint64_t count = 1000;; count *= 4) {
      const std::optional<double> took = bench(cell, count, sample);
      if (!took) return false;
      iops = static_cast<double>(count) / std::max(1e-4, *took);
      if (*took > 0.1) return true;
    }
  }

  Command command(const BlockCell& cell, uint64_t count) const {
    Command command = {
        program_, "bench", "-c", std::to_string(count), "-d", std::to_string(cell.depth),
        "-s",     "4096"};
    // It knows no random offsets. A long stride, an odd number of blocks, comes by every block of a
    // file and near the last one only after very many others.
    constexpr uint64_t kStrideBlocks = 100'003;
    if (cell.random) {
      command.emplace_back("-S");
      command.push_back(std::to_string(kStrideBlocks * 4096));
    }
    if (cell.path.empty()) {
      for (const char* word : {"--image-opts", "driver=null-co,size=1G,read-zeroes=off"})
        command.emplace_back(word);
    } else {
      for (const std::string& word : Command{"-f", "raw", "-t", "none", "-i", engine_, cell.path})
        command.push_back(word);
    }
    return command;
  }

  // Seconds.
  std::optional<double> bench(const BlockCell& cell, uint64_t count, Sample& sample) const {
    const auto text = read_output(name(), command(cell, count), &sample);
    if (!text) return std::nullopt;
    const size_t at = text->find("completed in ");
    if (at == std::string::npos) return std::nullopt;
    return std::max(1e-9, std::atof(text->c_str() + at + 13));
  }

  const std::string program_;
  const std::string engine_;
  std::map<std::string, double> iops_;
  int64_t start_cpu_ns_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<BlockContestant>> block_contestants(const BlockPrograms& programs) {
  std::vector<std::unique_ptr<BlockContestant>> all;
  for (const char* engine :
       {"io_uring", "auto", "sync", "threads", "worker", "linux-aio", "posix-aio"}) {
    all.push_back(
        std::make_unique<SkiffContestant>(programs.skiff, engine, std::string("skiff ") + engine));
  }
  for (const char* engine : {"psync", "libaio", "io_uring"})
    all.push_back(std::make_unique<FioContestant>(programs.fio, engine));
  for (const char* engine : {"threads", "native", "io_uring", "null-co"})
    all.push_back(std::make_unique<QemuContestant>(programs.qemu_img, engine));
  all.push_back(std::make_unique<SkiffContestant>(programs.skiff, "io_uring", kAgain));
  return all;
}

}  // namespace skiff::perf
