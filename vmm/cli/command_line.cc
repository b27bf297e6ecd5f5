// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/cli/command_line.h"

#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/queues_options.h"
#include "vmm/cli/bench_options.h"
#include "vmm/cli/exit_status.h"
#include "vmm/config/config_file.h"
#include "vmm/config/machine_config.h"
#include "vmm/experiment/experiment_options.h"
#include "vmm/storage/storage_options.h"

namespace skiff::vmm {
namespace {

using loop::Result;

// What the library collected, before it means anything.
struct RawArguments {
  std::string config_file;
  std::map<std::string_view, std::vector<std::string>> values;
  DoctorCommand doctor;
  DiskBenchWords bench_disk;
  ExperimentWords experiment;
  StorageWords storage;
  GuestBenchWords bench_guest;
  QueuesBenchWords bench_queues;
};

void declare_run(CLI::App& run, RawArguments& raw) {
  run.add_option("--config", raw.config_file, "JSON file with the same names as these options")
      ->type_name("FILE.json");
  for (const OptionInfo& option : machine_options()) {
    const std::string name = fmt::format("--{}", option.name);
    const std::string help(option.help);
    if (option.form == OptionForm::kFlag) {
      run.add_flag_callback(name, [&raw, &option] { raw.values[option.name] = {"on"}; }, help);
      continue;
    }
    CLI::Option* added = run.add_option(name, raw.values[option.name], help);
    added->type_name(std::string(option.shape))->allow_extra_args(false);
    if (!option.repeatable) added->expected(1);
  }
}

void declare_doctor(CLI::App& doctor, DoctorCommand& command) {
  CLI::Option* quiet = doctor.add_flag("--quiet", command.quiet,
                                       "Print nothing: 0 full speed, 2 emulated, 3 no KVM");
  CLI::Option* disk = doctor.add_option(
      "--disk", command.disk,
      "Say what this disk can do, and how fast each engine reads it; nothing is written");
  disk->type_name("FILE")->expected(1)->excludes(quiet);
  doctor.add_flag("--direct", command.direct, "Open the disk with O_DIRECT")->needs(disk);
}

void declare_bench_disk(CLI::App& disk, DiskBenchWords& words) {
  const auto option = [&disk](const char* name, std::string& target, const char* shape,
                              const char* help) {
    disk.add_option(name, target, help)->type_name(shape)->expected(1);
  };
  disk.add_option("FILE", words.path, "A file, a block device, null:... or an NBD URL")
      ->type_name("")
      ->required();
  option("--rw", words.rw, "PATTERN", "read, write, randread (the default), randwrite or randrw");
  option("--bs", words.bs, "SIZE", "Bytes of each request (4k)");
  option("--depth", words.depth, "N", "Requests that each job keeps under way (1)");
  option("--jobs", words.jobs, "N", "Threads, each with a loop and a channel of its own (1)");
  option("--engine", words.engines, "E[,E...]",
         "Engines, which take turns: auto (the default), sync, worker, threads, posix-aio, "
         "linux-aio, io_uring");
  option("--duration", words.duration, "SECONDS", "Of each engine, all its rounds together (10)");
  option("--rounds", words.rounds, "N", "Turns of each engine (5 with several engines, else 1)");
  option("--rate", words.rate, "N",
         "I/Os a second, all jobs together; latencies count from when each was due");
  option("--share", words.share, "N",
         "A second stream of N I/Os a second to a null device on each job's thread; its latencies "
         "are reported too");
  option("--size", words.size, "SIZE", "Use only the first SIZE bytes");
  option("--iops", words.iops, "N", "Limit the disk, as iops= of skiff run --disk does");
  option("--bps", words.bps, "SIZE", "Limit the disk, as bps= of skiff run --disk does");
  disk.add_flag("--direct", words.direct, "O_DIRECT: past the page cache");
  disk.add_flag("--overwrite", words.overwrite, "Write even where there is data, destroying it");
  disk.add_flag("--json", words.json, "Print the results as JSON");
  option("--plot", words.plot, "OUT.svg", "Draw the distributions of the latencies");
}

void declare_experiment(CLI::App& experiment, ExperimentWords& words) {
  const auto option = [&](const char* name, std::string& target, const char* shape,
                          const char* help) {
    return experiment.add_option(name, target, help)->type_name(shape)->expected(1);
  };
  option("FILE.json", words.path, "", "What to measure (docs/experiments)");
  option("--out", words.out, "PREFIX", "Write PREFIX.html and PREFIX.json (NAME-TIME)");
  option("--rounds", words.rounds, "N", "Instead of the file's");
  option("--seed", words.seed, "N", "Of the order, instead of the file's; of a simulation");
  option("--duration", words.duration, "SECONDS", "Of each measurement, instead of the file's");
  experiment.add_option("--file", words.files, "Use this one instead of making the file NAME")
      ->type_name("NAME=PATH")
      ->allow_extra_args(false);
  experiment.add_flag("--list", words.list, "Print the cells and measure nothing");
  experiment.add_option("--compare", words.compare, "How two results of an experiment differ")
      ->type_name("BEFORE.json AFTER.json")
      ->expected(2);
  option("--simulate", words.simulate, "vcpus=N,cores=N[,...]",
         "What this host's costs mean for a machine of that size");
  option("--costs", words.costs, "COSTS.json", "Instead of measured ones, for --simulate");
}

void declare_storage(CLI::App& storage, StorageWords& words) {
  const auto option = [&storage](const char* name, auto& target, const char* shape,
                                 const char* help) {
    return storage.add_option(name, target, help)->type_name(shape)->allow_extra_args(false);
  };
  option("--socket", words.sockets, "PATH", "Where the next --disk is served; repeatable")
      ->required();
  option("--disk", words.disks, "path=FILE|URL[,queues=N][,...]",
         "A disk, as for skiff run --disk (16 queues by default); repeatable")
      ->required();
  option("--iothread", words.iothreads, "id=NAME[,...]",
         "A thread that serves queues, as for skiff run; repeatable");
  option("--workers", words.workers, "MAX[,min=N][,cpus=LIST][,sched=POLICY]",
         "Threads for blocking calls, as for skiff run");
  option("--log", words.log, "LEVEL", "trace, debug, info, warn (default), error or off");
}

// The command line says more than the file: it comes second, and single values replace the file's.
Result<MachineConfig> build_config(const RawArguments& raw) {
  MachineConfig config;
  if (!raw.config_file.empty()) SKIFF_RETURN_IF_ERROR(apply_config_file(config, raw.config_file));
  for (const OptionInfo& option : machine_options()) {
    const auto values = raw.values.find(option.name);
    if (values == raw.values.end()) continue;
    for (const std::string& value : values->second)
      SKIFF_RETURN_IF_ERROR(apply_option(config, option, value));
  }
  SKIFF_RETURN_IF_ERROR(validate(config));
  return config;
}

// The library reports by exceptions; its own macro turns them into a status. Nothing when parsing
// went well.
int parse_words(CLI::App& app, int argc, const char* const* argv, bool& parsed) {
  CLI11_PARSE(app, argc, argv);
  parsed = true;
  return 0;
}

Command refuse(const loop::Error& error) {
  std::fprintf(stderr, "skiff: %s\n", error.message().c_str());
  return ExitCommand{kExitUsage};
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Skiff: a lightweight KVM virtual machine monitor", "skiff");
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* root, const CLI::Error& error) {
    std::string command;
    for (const CLI::App* at = root; !at->get_subcommands().empty();) {
      at = at->get_subcommands().front();
      command += at->get_name() + " ";
    }
    return fmt::format("skiff: {}\nTry: skiff {}--help\n", error.what(), command);
  });
  RawArguments raw;
  CLI::App* run = app.add_subcommand("run", "Boot a guest");
  CLI::App* doctor = app.add_subcommand("doctor", "Say what this host can do");
  CLI::App* bench = app.add_subcommand("bench", "Measure");
  CLI::App* disk = bench->add_subcommand("disk", "How fast a disk is with each engine");
  CLI::App* guest = bench->add_subcommand("guest", "How fast a disk is as a guest sees it");
  CLI::App* queues = bench->add_subcommand("queues", "What many queues cost, without a guest");
  bench->require_subcommand(1);
  declare_bench_disk(*disk, raw.bench_disk);
  CLI::App* experiment = app.add_subcommand("experiment", "Measure what a file declares");
  declare_experiment(*experiment, raw.experiment);
  CLI::App* storage = app.add_subcommand("storage", "Serve disks to other machines (vhost-user)");
  declare_storage(*storage, raw.storage);
  declare_bench_guest(*guest, raw.bench_guest);
  declare_bench_queues(*queues, raw.bench_queues);
  CLI::App* version = app.add_subcommand("version", "Print the version");
  declare_run(*run, raw);
  declare_doctor(*doctor, raw.doctor);

  bool parsed = false;
  const int status = parse_words(app, argc, argv, parsed);
  if (!parsed) return ExitCommand{status == 0 ? 0 : kExitUsage};
  if (doctor->parsed()) return raw.doctor;
  if (version->parsed()) return VersionCommand{};
  if (disk->parsed()) {
    auto options = parse_disk_bench(raw.bench_disk);
    if (!options) return refuse(options.error());
    return BenchDiskCommand{*std::move(options)};
  }
  if (experiment->parsed()) {
    auto options = parse_experiment_words(raw.experiment);
    if (!options) return refuse(options.error());
    return ExperimentCommand{*std::move(options)};
  }
  if (storage->parsed()) {
    auto options = parse_storage(raw.storage);
    if (!options) return refuse(options.error());
    return StorageCommand{*std::move(options)};
  }
  if (guest->parsed()) {
    auto options = parse_guest_bench(raw.bench_guest);
    if (!options) return refuse(options.error());
    return BenchGuestCommand{*std::move(options)};
  }
  if (queues->parsed()) {
    auto options = parse_queues_bench(raw.bench_queues);
    if (!options) return refuse(options.error());
    return BenchQueuesCommand{*std::move(options)};
  }
  auto config = build_config(raw);
  if (!config) return refuse(config.error());
  return RunCommand{*std::move(config)};
}

}  // namespace skiff::vmm
