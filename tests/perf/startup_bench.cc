// SPDX-License-Identifier: GPL-2.0-or-later
// How long a machine takes whose guest ends at once, and how much memory it has besides the
// guest's: Skiff beside QEMU microvm, interleaved.
//
//   startup_bench SKIFF [QEMU [ROUNDS]]
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <ios>
#include <string>
#include <vector>

#include "tests/payload/payload_elf.h"
#include "tests/perf/child_process.h"

namespace {

using skiff::payload::operator+;  // NOLINT(misc-unused-using-decls): it does not see operators.
using skiff::perf::Sample;
using Command = std::vector<std::string>;

constexpr int kDefaultRounds = 21;
constexpr uint64_t kGuestBytes = uint64_t{128} << 20;
constexpr int kGuestEndedItself = 1;  // (0 << 1) | 1.

std::string write_payload(const char* name, const std::vector<uint8_t>& code) {
  std::string path = "/tmp/skiff-bench-" + std::to_string(::getpid()) + "-" + name;
  const std::vector<uint8_t> elf = skiff::payload::pvh_elf(code);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(elf.data()), static_cast<std::streamsize>(elf.size()));
  return path;
}

Command skiff_command(const std::string& program, const std::string& kernel, int cpus,
                      const std::string& serial) {
  return {program,    "run",  "--kernel", kernel, "--cpus", std::to_string(cpus),
          "--memory", "128M", "--serial", serial};
}

Command qemu_command(const std::string& program, const std::string& kernel, int cpus,
                     const std::string& serial) {
  return {program,
          "-M",
          "microvm,x-option-roms=off,rtc=off",
          "-accel",
          "kvm",
          "-cpu",
          "host,-arch-capabilities",  // Setting that MSR fails on kvm_pvm.

          "-smp",
          std::to_string(cpus),
          "-m",
          "128",
          "-kernel",
          kernel,
          "-serial",
          serial,
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-device",
          "isa-debug-exit,iobase=0xf4,iosize=0x04"};
}

struct Peer {
  std::string name;
  Command command;
  std::vector<Sample> samples;
};

double percentile_ms(const std::vector<Sample>& samples, int64_t Sample::* field, double fraction) {
  std::vector<int64_t> values;
  values.reserve(samples.size());
  for (const Sample& sample : samples) values.push_back(sample.*field);
  std::ranges::sort(values);
  const auto last = static_cast<double>(values.size() - 1);
  return static_cast<double>(values[static_cast<size_t>(std::lround(fraction * last))]) / 1e6;
}

// False when a guest did not end as it should: then there is nothing to compare.
bool measure(std::vector<Peer>& peers, int rounds, int cpus) {
  for (int round = 0; round < rounds; ++round) {
    for (Peer& peer : peers) {
      const Sample sample = skiff::perf::run_to_end(peer.command);
      if (sample.status != kGuestEndedItself) {
        std::printf("%s: the guest did not end itself: status %d\n", peer.name.c_str(),
                    sample.status);
        return false;
      }
      peer.samples.push_back(sample);
    }
  }
  for (const Peer& peer : peers)
    std::printf(
        "start-to-end %-14s %3d vCPU  median %7.2f ms  p10 %7.2f  p90 %7.2f  CPU %7.2f ms\n",
        peer.name.c_str(), cpus, percentile_ms(peer.samples, &Sample::wall_ns, 0.5),
        percentile_ms(peer.samples, &Sample::wall_ns, 0.1),
        percentile_ms(peer.samples, &Sample::wall_ns, 0.9),
        percentile_ms(peer.samples, &Sample::cpu_ns, 0.5));
  return true;
}

void report_memory(const std::string& name, const Command& command, int cpus) {
  const int64_t bytes = skiff::perf::anonymous_bytes_when_up(command, kGuestBytes);
  std::printf("memory       %-14s %3d vCPU  anonymous %7.2f MiB beside the guest's RAM\n",
              name.c_str(), cpus, static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: startup_bench SKIFF [QEMU [ROUNDS]]\n");
    return 120;
  }
  const std::string skiff = argv[1];
  const std::string qemu = argc > 2 ? argv[2] : "";
  const int rounds = argc > 3 ? std::max(1, std::atoi(argv[3])) : kDefaultRounds;
  const std::string exiting = write_payload("exit.elf", skiff::payload::debug_exit(0));
  const std::string halting =
      write_payload("halt.elf", skiff::payload::out8(0x3f8, '!') + skiff::payload::Code{0xfa} +
                                    skiff::payload::halt());

  bool ok = true;
  for (const int cpus : {1, 4, 16, 64}) {
    std::vector<Peer> peers = {{"skiff", skiff_command(skiff, exiting, cpus, "null"), {}},
                               {"skiff again", skiff_command(skiff, exiting, cpus, "null"), {}}};
    if (!qemu.empty())
      peers.push_back({"qemu microvm", qemu_command(qemu, exiting, cpus, "none"), {}});
    ok = measure(peers, rounds, cpus) && ok;
    report_memory("skiff", skiff_command(skiff, halting, cpus, "stdio"), cpus);
    if (!qemu.empty())
      report_memory("qemu microvm", qemu_command(qemu, halting, cpus, "stdio"), cpus);
  }
  ::unlink(exiting.c_str());
  ::unlink(halting.c_str());
  return ok ? 0 : 1;
}
