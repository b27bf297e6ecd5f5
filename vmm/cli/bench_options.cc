// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/cli/bench_options.h"

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/queues_options.h"

namespace skiff::vmm {
namespace {

// Adds options with one value each.
class Declare {
 public:
  explicit Declare(CLI::App& app) : app_(app) {}
  void operator()(const char* name, std::string& target, const char* shape,
                  const char* help) const {
    app_.add_option(name, target, help)->type_name(shape)->expected(1);
  }
  CLI::Option* file(std::string& target, const char* help) const {
    return app_.add_option("FILE", target, help)->type_name("");
  }
  void repeatable(const char* name, std::vector<std::string>& target, const char* shape,
                  const char* help) const {
    app_.add_option(name, target, help)->type_name(shape)->allow_extra_args(false);
  }

 private:
  CLI::App& app_;
};

}  // namespace

void declare_bench_guest(CLI::App& guest, GuestBenchWords& words) {
  const Declare option(guest);
  option.file(words.path, "A file, a block device or null:...")->required();
  option("--vmm", words.vmm, "V[,V...]", "skiff (the default), qemu");
  option("--cpus", words.cpus, "N", "vCPUs, 1 to 64 (1)");
  option("--queues", words.queues, "N", "Queues of the disk (as many as vCPUs)");
  option("--queue-size", words.queue_size, "N", "Entries of a queue (256)");
  option("--rw", words.rw, "PATTERN", "read, write, randread (the default), randwrite or randrw");
  option("--bs", words.bs, "SIZE", "Bytes of each request (4k)");
  option("--depth", words.depth, "N", "Requests that each queue keeps under way (1)");
  option("--rate", words.rate, "N",
         "Requests a second on each queue; latencies count from when each was due");
  option("--duration", words.duration, "SECONDS",
         "Of each contestant, all its rounds together (5)");
  option("--rounds", words.rounds, "N", "Turns of each contestant (5 with several, else 1)");
  option("--size", words.size, "SIZE", "Use only the first SIZE bytes");
  option("--completion", words.completion, "poll|irq",
         "How the guest learns of completions: it looks all the time (poll), or an interrupt wakes "
         "it");
  option("--bus", words.bus, "pci|mmio", "The disk's transport (pci)");
  option("--submit", words.submit, "M[,M...]",
         "Skiff's ways to serve a queue: auto, iothread, vcpu, poll");
  option("--engine", words.engine, "E[,E...]", "Skiff's I/O engines (auto)");
  option("--disk-keys", words.disk_keys, "KEY=VALUE[,...]", "More for Skiff's --disk");
  option("--qemu", words.qemu, "PROGRAM", "Which QEMU (qemu-system-x86_64)");
  option("--qemu-aio", words.qemu_aio, "A[,A...]",
         "QEMU's threads, native, io_uring (the default); null-co, null-aio for null:...");
  option("--qemu-poll-us", words.qemu_poll_us, "N[,N...]",
         "How long QEMU's IOThread polls at most (32)");
  option.repeatable("--qemu-arg", words.qemu_args, "WORD", "One more word for QEMU; repeatable");
  option.repeatable("--skiff-arg", words.skiff_args, "WORD",
                    "One more word for skiff run; repeatable");
  option("--floor", words.floor, "ENGINE|none",
         "The host's own way to the disk, measured beside (sync at depth 1, else io_uring)");
  guest.add_flag("--direct", words.direct, "O_DIRECT: past the page cache");
  guest.add_flag("--indirect", words.indirect, "Requests in indirect descriptors");
  guest.add_flag("--verify", words.verify, "Writes leave a pattern, and reads must find it");
  guest.add_flag("--overwrite", words.overwrite, "Write even where there is data, destroying it");
  guest.add_flag("--json", words.json, "Print the results as JSON");
  option("--plot", words.plot, "OUT.svg", "Draw the distributions of the latencies");
}

void declare_bench_queues(CLI::App& queues, QueuesBenchWords& words) {
  const Declare option(queues);
  option.file(words.path, "A file, a block device, null:... or an NBD URL");
  option("--queues", words.queues, "N", "Queues, 1 to 64 (1)");
  option("--queue-size", words.queue_size, "N", "Entries of a queue (256)");
  option("--threads", words.threads, "N", "Threads that drive the queues (1)");
  option("--iothreads", words.iothreads, "N", "Threads that serve them (1)");
  option("--rw", words.rw, "PATTERN", "read, write, randread (the default), randwrite or randrw");
  option("--bs", words.bs, "SIZE", "Bytes of each request (4k)");
  option("--depth", words.depth, "N", "Requests that each queue keeps under way (1)");
  option("--rate", words.rate, "N",
         "Requests a second on each queue; latencies count from when each was due");
  option("--duration", words.duration, "SECONDS", "Of each device, all its rounds together (5)");
  option("--rounds", words.rounds, "N", "Turns of each device (5 with several, else 1)");
  option("--size", words.size, "SIZE", "Use only the first SIZE bytes");
  option("--completion", words.completion, "poll|irq",
         "How drivers learn of completions: they look all the time (poll), or an eventfd wakes "
         "them");
  option("--submit", words.submit, "M[,M...]",
         "Ways to serve a queue in this process: iothread (the default), vcpu, poll, none");
  option("--engine", words.engine, "E[,E...]", "I/O engines in this process (auto)");
  option.repeatable("--vhost-user", words.sockets, "SOCKET",
                    "Another device, behind a vhost-user-blk socket; repeatable");
  queues.add_flag("--direct", words.direct, "O_DIRECT: past the page cache");
  queues.add_flag("--indirect", words.indirect, "Requests in indirect descriptors");
  queues.add_flag("--verify", words.verify, "Writes leave a pattern, and reads must find it");
  queues.add_flag("--overwrite", words.overwrite, "Write even where there is data, destroying it");
  queues.add_flag("--json", words.json, "Print the results as JSON");
  option("--plot", words.plot, "OUT.svg", "Draw the distributions of the latencies");
}

}  // namespace skiff::vmm
