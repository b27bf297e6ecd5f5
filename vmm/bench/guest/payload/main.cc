// SPDX-License-Identifier: GPL-2.0-or-later
// The payload guest: reads its command line, brings up the disk and the processors, runs one job on
// each queue, prints one JSON document to port 0xe9 and ends the machine.
//
// Processor i drives queues i, i + cpus, ... Everything here runs in CPL 3; see start.S.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/tick_scale.h"
#include "vmm/bench/guest/payload/console.h"
#include "vmm/bench/guest/payload/cpu.h"
#include "vmm/bench/guest/payload/machine_abi.h"
#include "vmm/bench/guest/payload/parameters.h"
#include "vmm/bench/guest/payload/processors.h"
#include "vmm/bench/guest/payload/virtio_disk.h"

// NOLINTBEGIN(readability-identifier-naming): the assembler's names, in start.S.
extern "C" {
extern uint32_t payload_start_info;
extern const uint8_t payload_end[];
[[noreturn]] void payload_main();
[[noreturn]] void payload_other_main(uint32_t cpu);
[[noreturn]] void payload_fault(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address);
}
// NOLINTEND(readability-identifier-naming)

namespace skiff::vmm::payload {
namespace {

constexpr uint8_t kEndedWell = 0;
constexpr uint8_t kGaveUp = 1;
constexpr uint16_t kExitPort = 0xf4;
constexpr size_t kCommandLineMax = 4096;

// What the processors share.
struct Bench {
  Parameters parameters;
  VirtioDisk disk;
  BlkJob* jobs[PAYLOAD_CPUS_MAX] = {};  // By queue.
  uint64_t interrupts_before[PAYLOAD_CPUS_MAX] = {};
  uint64_t spins[PAYLOAD_CPUS_MAX] = {};  // Turns of a processor that found nothing to do.
  uint64_t halts[PAYLOAD_CPUS_MAX] = {};
  uint8_t apic_ids[PAYLOAD_CPUS_MAX] = {};
  std::atomic<uint32_t> ready{0};
  std::atomic<uint32_t> done{0};
  std::atomic<bool> go{false};
};
// Nobody runs constructors here.
constinit Bench bench;
constinit Console the_console = {};
constinit char command_line[kCommandLineMax] = {};
constinit DriverHistogram merged;

// PVH's hvm_start_info, as far as it is used (Xen public/arch-x86/hvm/start_info.h).
struct StartInfo {
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t modules;
  uint64_t module_list;
  uint64_t command_line;
};

void read_command_line() {
  constexpr uint32_t kMagic = 0x336e'c578;
  const auto* info = reinterpret_cast<const StartInfo*>(uint64_t{payload_start_info});
  if (info->magic != kMagic) give_up("not started by PVH");
  const auto* text = reinterpret_cast<const char*>(info->command_line);
  for (size_t i = 0; i + 1 < kCommandLineMax && text != nullptr && text[i] != '\0'; ++i)
    command_line[i] = text[i];
  const char* bad = nullptr;
  if (!parse_parameters(command_line, bench.parameters, bad)) {
    console().text("{\"error\": \"a word of the command line: ");
    while (*bad != '\0' && *bad != ' ' && *bad != '"' && *bad != '\\') {
      const char one[2] = {*bad++, '\0'};
      console().text(one);
    }
    console().text("\"}\n").flush();
    end_machine(kGaveUp);
  }
}

void check(const Parameters& parameters) {
  if (parameters.tsc_khz == 0) give_up("bench.tsc_khz is missing");
  if (parameters.ram == 0) give_up("bench.ram is missing");
  if (parameters.cpus == 0 || parameters.cpus > PAYLOAD_CPUS_MAX)
    give_up("bench.cpus: 1 to 64", parameters.cpus);
  if (parameters.queues == 0 || parameters.queues > PAYLOAD_CPUS_MAX)
    give_up("bench.queues: 1 to 64", parameters.queues);
  if (parameters.bs == 0 || parameters.bs % kBlkSectorBytes != 0)
    give_up("bench.bs: a multiple of 512", parameters.bs);
  if (parameters.depth == 0 ||
      parameters.depth > BlkTable::depth_max(static_cast<uint16_t>(parameters.queue_size),
                                             parameters.indirect != 0))
    give_up("bench.depth: more than the queue holds", parameters.depth);
  if (parameters.mmio != 0 && parameters.irq != 0 && parameters.cpus != 1)
    give_up("virtio-mmio has one interrupt line: with bench.irq only one processor");
}

BlkJob::Options job_options(uint32_t queue) {
  const Parameters& wanted = bench.parameters;
  BlkJob::Options options;
  options.table.queue_size = static_cast<uint16_t>(wanted.queue_size);
  options.table.depth = static_cast<uint32_t>(wanted.depth);
  options.table.block_bytes = static_cast<uint32_t>(wanted.bs);
  options.table.event_idx = (bench.disk.features & kFeatureEventIdx) != 0;
  options.table.indirect = (bench.disk.features & kFeatureIndirect) != 0;
  options.random = wanted.random != 0;
  options.write_percent = static_cast<uint32_t>(wanted.write_percent);
  options.verify = wanted.verify != 0;
  options.block_count = bench.disk.capacity_sectors / (wanted.bs / kBlkSectorBytes);
  if (wanted.blocks != 0 && wanted.blocks < options.block_count)
    options.block_count = wanted.blocks;
  if (options.block_count == 0) give_up("the disk is smaller than a block");
  options.first_block = options.block_count / wanted.queues * queue;
  options.rate = wanted.rate;
  options.seed = (wanted.seed + queue + 1) * 0x9e37'79b9'7f4a'7c15;
  options.scale = TickScale(wanted.tsc_khz);
  return options;
}

template <typename Transport>
void bring_up(Transport& transport) {
  const Parameters& wanted = bench.parameters;
  uint64_t features = kFeatureVersion1;
  if (wanted.event_idx != 0) features |= kFeatureEventIdx;
  if (wanted.indirect != 0) features |= kFeatureIndirect;
  if (wanted.queues > 1) features |= kFeatureMq;
  transport.begin(wanted, features, bench.disk);
  if (bench.disk.queues < wanted.queues)
    give_up("the disk has fewer queues than asked for", bench.disk.queues);
  if (wanted.indirect != 0 && (bench.disk.features & kFeatureIndirect) == 0)
    give_up("the disk has no indirect descriptors");

  constexpr uint64_t kLargePage = uint64_t{2} << 20;
  const uint64_t begin =
      (reinterpret_cast<uint64_t>(payload_end) + kLargePage - 1) & ~(kLargePage - 1);
  if (begin >= wanted.ram) give_up("too little memory");
  DriverMemory memory(reinterpret_cast<std::byte*>(begin), begin, wanted.ram - begin);
  for (uint32_t queue = 0; queue < wanted.queues; ++queue) {
    const BlkJob::Options options = job_options(queue);
    std::byte* place = memory.allocate(sizeof(BlkJob), alignof(BlkJob));
    if (place == nullptr) give_up("too little memory for queue", queue);
    bench.jobs[queue] = new (place) BlkJob();
    if (!bench.jobs[queue]->place(memory, options)) give_up("too little memory for queue", queue);
    transport.add_queue(static_cast<uint16_t>(queue), options.table.queue_size,
                        bench.jobs[queue]->places(), bench.apic_ids[queue % wanted.cpus]);
  }
  transport.go();
}

// One turn of each of this processor's jobs. True when all have ended.
bool turn_jobs(uint32_t cpu, bool& idle) {
  bool ended = true;
  for (uint64_t queue = cpu; queue < bench.parameters.queues; queue += bench.parameters.cpus) {
    BlkJob& job = *bench.jobs[queue];
    job.look();
    const BlkJob::Turn turn = job.turn(tick_now());
    if (turn.kick) bench.disk.doorbells[queue].kick();
    if (turn.taken != 0 || turn.sent != 0) idle = false;
    if (!job.has_ended()) ended = false;
  }
  return ended;
}

// Halts until a queue of this processor has news or a request is due.
void wait_for_work(uint32_t cpu) {
  const uint64_t seen = interrupts_of(cpu);
  uint64_t wake_at = kNeverTick;
  for (uint64_t queue = cpu; queue < bench.parameters.queues; queue += bench.parameters.cpus) {
    BlkJob& job = *bench.jobs[queue];
    if (job.enable_interrupts()) return;
    if (job.next_tick() < wake_at) wake_at = job.next_tick();
  }
  if (wake_at != kNeverTick) {
    const TickScale scale(bench.parameters.tsc_khz);
    // Nearer than a timer interrupt takes to come.
    constexpr uint64_t kNearNs = 20'000;
    const uint64_t now = tick_now();
    const uint64_t left_ns = wake_at > now ? scale.to_ns(wake_at - now) : 0;
    if (left_ns < kNearNs) return pause();
    set_timer(left_ns - kNearNs / 2);
  }
  ++bench.halts[cpu];
  wait_for_interrupt(seen);
}

void run_jobs(uint32_t cpu) {
  const TickScale scale(bench.parameters.tsc_khz);
  BlkJob::Span span;
  span.begin = tick_now();
  span.measure_from = span.begin + scale.to_ticks(bench.parameters.warmup_us * 1000);
  span.until = span.measure_from + scale.to_ticks(bench.parameters.duration_us * 1000);
  for (uint64_t queue = cpu; queue < bench.parameters.queues; queue += bench.parameters.cpus)
    bench.jobs[queue]->start(span);
  bench.interrupts_before[cpu] = interrupts_of(cpu);
  while (true) {
    bool idle = true;
    if (turn_jobs(cpu, idle)) return;
    if (!idle) continue;
    ++bench.spins[cpu];
    if (bench.parameters.irq != 0)
      wait_for_work(cpu);
    else
      pause();
  }
}

void print_queue(uint32_t queue, const TickScale& scale) {
  const BlkJob& job = *bench.jobs[queue];
  const BlkJob::Record& record = job.record();
  console()
      .text(queue == 0 ? "\n  {" : ",\n  {")
      .field("cpu", queue % bench.parameters.cpus, true)
      .field("reads", record.reads)
      .field("writes", record.writes)
      .field("requests", record.requests)
      .field("kicks", record.kicks)
      .field("batches", record.batches)
      .field("behind_ns", scale.to_ns(job.behind_ticks()))
      .text("}");
}

void print_results(uint64_t ran_ns) {
  const Parameters& wanted = bench.parameters;
  const TickScale scale(wanted.tsc_khz);
  uint64_t interrupts = 0;
  uint64_t spins = 0;
  uint64_t halts = 0;
  for (uint32_t cpu = 0; cpu < wanted.cpus; ++cpu) {
    interrupts += interrupts_of(cpu) - bench.interrupts_before[cpu];
    spins += bench.spins[cpu];
    halts += bench.halts[cpu];
  }
  Console& out = console();
  out.text("{").field("cpus", wanted.cpus, true).field("features", bench.disk.features);
  out.field("capacity_sectors", bench.disk.capacity_sectors).field("ran_ns", ran_ns);
  out.field("interrupts", interrupts).field("spins", spins).field("halts", halts);
  for (uint32_t queue = 0; queue < wanted.queues; ++queue) {
    const BlkJob::Record& record = bench.jobs[queue]->record();
    merged.merge(record.latency);
    if (record.failure == BlkJob::Failure::kNone) continue;
    out.text(", \"error\": \"").text(failure_text(record.failure)).text("\"");
    out.field("sector", record.failed_sector).field("queue", queue);
    break;
  }
  out.text(", \"queues\": [");
  for (uint32_t queue = 0; queue < wanted.queues; ++queue) print_queue(queue, scale);
  out.text("],\n\"latency\": {").field("count", merged.count(), true);
  out.field("sum_ns", merged.sum_ns()).field("max_ns", merged.max_ns()).text(", \"buckets\": [");
  const char* separator = "";
  for (size_t bucket = 0; bucket < DriverHistogram::kBuckets; ++bucket) {
    if (merged.count_in(bucket) == 0) continue;
    out.text(separator).number(bucket).text(",").number(merged.count_in(bucket));
    separator = ",";
  }
  out.text("]}}\n").flush();
}

void run() {
  set_vectors();
  read_command_line();
  const Parameters& wanted = bench.parameters;
  check(wanted);
  bench.apic_ids[0] = local_apic_id();
  enable_local_apic();
  start_other_processors(static_cast<uint32_t>(wanted.cpus - 1));
  while (bench.ready.load(std::memory_order_acquire) + 1 < wanted.cpus) pause();
  PciDisk pci;
  MmioDisk mmio;
  if (wanted.mmio == 0) {
    bring_up(pci);
  } else {
    bring_up(mmio);
    if (wanted.irq != 0) route_line_interrupts(mmio.base());
  }
  console().text("begin\n").flush();
  const uint64_t begin = tick_now();
  bench.go.store(true, std::memory_order_release);
  run_jobs(0);
  while (bench.done.load(std::memory_order_acquire) + 1 < wanted.cpus) pause();
  const uint64_t ran_ns = TickScale(wanted.tsc_khz).to_ns(tick_now() - begin);
  console().text("end\n").flush();
  print_results(ran_ns);
  end_machine(kEndedWell);
}

}  // namespace

Console& console() { return the_console; }

void end_machine(uint8_t value) {
  out8(kExitPort, value);
  park();
}

void give_up(const char* message, uint64_t detail) {
  console().text("{\"error\": \"").text(message);
  if (detail != 0) console().text(" ").number(detail);
  console().text("\"}\n").flush();
  end_machine(kGaveUp);
}

}  // namespace skiff::vmm::payload

using namespace skiff::vmm::payload;

void payload_main() {
  run();
  park();
}

void payload_other_main(uint32_t cpu) {
  if (cpu >= bench.parameters.cpus) park();
  bench.apic_ids[cpu] = local_apic_id();
  enable_local_apic();
  bench.ready.fetch_add(1, std::memory_order_release);
  while (!bench.go.load(std::memory_order_acquire)) skiff::vmm::payload::pause();
  run_jobs(cpu);
  bench.done.fetch_add(1, std::memory_order_release);
  park();
}

void payload_fault(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address) {
  console().text("{\"error\": \"the guest faulted\"").field("vector", vector);
  console().field("code", error).field("rip", rip).field("address", address).text("}\n").flush();
  end_machine(kGaveUp);
}
