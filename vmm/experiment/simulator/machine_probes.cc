// SPDX-License-Identifier: GPL-2.0-or-later
// Probes of what lies below the event loops: virtqueues, cores, KVM.
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "block/aligned_buffer.h"
#include "devices/core/doorbell.h"
#include "devices/core/guest_memory.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virt_ring.h"
#include "loop/clock.h"
#include "loop/cpu_set.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/cpuid.h"
#include "vmm/experiment/simulator/host_costs.h"
#include "vmm/experiment/simulator/on_loop.h"
#include "vmm/experiment/simulator/probes.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/memory_slots.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

int64_t now_ns() { return loop::MonotonicClock().now_ns(); }

// A queue of 96 descriptors in chains of three, as a driver's 4 KiB reads are.
constexpr uint16_t kQueueSize = 128;
constexpr uint16_t kChains = 32;
constexpr uint64_t kRingBytes = uint64_t{64} << 10;
constexpr uint64_t kAvailable = 0x1000;
constexpr uint64_t kUsed = 0x2000;
constexpr uint64_t kBuffers = 0x4000;
constexpr uint32_t kQueueRounds = 20'000;

void write_chains(std::byte* memory) {
  using devices::VirtDescriptor;
  for (uint16_t i = 0; i < kChains; ++i) {
    const auto first = static_cast<uint16_t>(3 * i);
    const auto next = [](uint16_t index) { return static_cast<uint16_t>(index + 1); };
    devices::store_descriptor(memory, first, {kBuffers, 16, VirtDescriptor::kNext, next(first)});
    devices::store_descriptor(
        memory, first + 1U,
        {kBuffers + 0x1000, 4096, VirtDescriptor::kNext | VirtDescriptor::kWrite,
         static_cast<uint16_t>(first + 2)});
    devices::store_descriptor(memory, first + 2U,
                              {kBuffers + 0x3000, 1, VirtDescriptor::kWrite, 0});
  }
}

constexpr int kLineTrips = 1000;
constexpr int kLineGames = 100;
constexpr int kSwitches = 20'000;

struct alignas(128) Line {
  std::atomic<int> value{0};
};

// MMIO where no RAM is: the first ends in userspace, the second in an eventfd.
constexpr uint32_t kExitAddress = 0x1000'0000;
constexpr uint32_t kDoorbellAddress = 0x1000'1000;
constexpr uint32_t kExits = 300;
constexpr uint32_t kDoorbells = 3000;

// Writes to the first address `kExits` times, to the second `kDoorbells` times, once more to the
// first, and spins.
std::vector<uint8_t> exit_code() {
  std::vector<uint8_t> code;
  const auto load = [&](uint8_t opcode, uint32_t value) {
    code.push_back(opcode);
    for (int shift = 0; shift < 32; shift += 8)
      code.push_back(static_cast<uint8_t>(value >> shift));
  };
  const auto add = [&](std::initializer_list<uint8_t> bytes) {
    code.insert(code.end(), bytes.begin(), bytes.end());
  };
  for (const auto& [address, times] :
       {std::pair{kExitAddress, kExits}, std::pair{kDoorbellAddress, kDoorbells},
        std::pair{kExitAddress, 1U}}) {
    load(0xbb, address);                        // mov ebx, address
    load(0xb9, times);                          // mov ecx, times
    add({0x89, 0x03, 0xff, 0xc9, 0x75, 0xfa});  // 1: mov [rbx], eax; dec ecx; jnz 1b
  }
  add({0xeb, 0xfe});  // 1: jmp 1b
  return code;
}

Result<std::unique_ptr<Vcpu>> make_vcpu(Vm& vm, const devices::GuestMemory& memory) {
  if (!write_payload_tables(memory) || !write_payload_code(memory, exit_code()))
    return Error(ErrorKind::kInvalidArgument, "The probe does not fit its memory");
  auto vcpu = Vcpu::create(vm, 0);
  if (!vcpu) return vcpu.error();
  CpuidOptions cpuid;
  SKIFF_RETURN_IF_ERROR((*vcpu)->set_cpuid(make_cpuid(vm.system().supported_cpuid(), cpuid, 0)));
  SKIFF_RETURN_IF_ERROR((*vcpu)->start_at(payload_boot_state(VcpuMode::kLong64User)));
  return vcpu;
}

// The time at which the guest's next exit came.
Result<int64_t> next_exit(Vcpu& vcpu) {
  while (true) {
    const auto exit = vcpu.run();
    if (!exit) return exit.error();
    if (exit->kind == VcpuExitKind::kInterrupted) continue;
    if (exit->kind != VcpuExitKind::kMmio)
      return Error(ErrorKind::kUnsupported, "KVM: the probe's guest ended");
    return now_ns();
  }
}

// The quickest of many short games: nobody took a CPU away meanwhile.
Result<void> probe_line(HostCosts& costs) {
  Line there;
  Line back;
  constexpr int kAll = kLineGames * kLineTrips;
  auto other = loop::Thread::create({.name = "probe-line"}, [&] {
    for (int i = 1; i <= kAll; ++i) {
      while (there.value.load(std::memory_order_acquire) != i) {
      }
      back.value.store(i, std::memory_order_release);
    }
  });
  if (!other) return other.error();
  int64_t quickest_ns = INT64_MAX;
  for (int game = 0, i = 1; game < kLineGames; ++game) {
    const int64_t begin_ns = now_ns();
    for (int trip = 0; trip < kLineTrips; ++trip, ++i) {
      there.value.store(i, std::memory_order_release);
      while (back.value.load(std::memory_order_acquire) != i) {
      }
    }
    quickest_ns = std::min(quickest_ns, now_ns() - begin_ns);
  }
  costs.line_ns = static_cast<double>(quickest_ns) / (2.0 * kLineTrips);
  return {};
}

}  // namespace

Result<void> probe_virtqueue(HostCosts& costs) {
  const block::AlignedBuffer buffer(kRingBytes, 4096);
  std::ranges::fill(buffer.bytes(), std::byte{0});
  const devices::GuestMemory memory(
      {{.base = {0}, .host = buffer.data(), .size_bytes = kRingBytes}});
  write_chains(buffer.data());
  devices::VirtQueue queue(memory);
  SKIFF_RETURN_IF_ERROR(queue.configure(
      {.size = kQueueSize, .descriptors = {0}, .available = {kAvailable}, .used = {kUsed}},
      devices::kVirtioRingEventIdx));
  devices::DescriptorChain chain;
  uint16_t index = 0;
  const int64_t begin_ns = now_ns();
  for (uint32_t round = 0; round < kQueueRounds; ++round) {
    std::byte* available = buffer.data() + kAvailable;
    for (uint16_t i = 0; i < kChains; ++i, ++index)
      devices::ring_store<uint16_t>(available + devices::avail_entry_offset(index % kQueueSize),
                                    static_cast<uint16_t>(3 * i));
    devices::ring_store<uint16_t>(available + devices::kRingIndexOffset, index,
                                  std::memory_order_release);
    queue.disable_notifications();
    while (queue.pop(chain) == devices::VirtQueue::Pop::kChain) queue.push_used(chain.head(), 4097);
    queue.publish_used();
    queue.enable_notifications();
  }
  if (queue.is_broken()) return Error(ErrorKind::kUnsupported, "The virtqueue's probe broke");
  costs.queue_ns =
      static_cast<double>(now_ns() - begin_ns) / (double{kQueueRounds} * double{kChains});
  return {};
}

Result<void> probe_cores(HostCosts& costs) {
  const auto cpus = usable_cpus();
  if (!cpus) return cpus.error();
  if (cpus->size() < 2)
    return Error(ErrorKind::kUnsupported, "Lines between cores: there is only one CPU");
  SKIFF_RETURN_IF_ERROR(probe_line(costs));
  const loop::CpuSet& one = cpus->front();
  const auto yield = [] {
    for (int i = 0; i < kSwitches; ++i) ::sched_yield();
  };
  const int64_t begin_ns = now_ns();
  {
    auto first = loop::Thread::create({.name = "probe-switch", .cpus = one}, yield);
    if (!first) return first.error();
    auto second = loop::Thread::create({.name = "probe-switch", .cpus = one}, yield);
    if (!second) return second.error();
  }
  costs.switch_ns = static_cast<double>(now_ns() - begin_ns) / (2.0 * kSwitches);
  return {};
}

Result<void> probe_kvm(HostCosts& costs) {
  const auto system = KvmSystem::open();
  if (!system) return system.error();
  auto vm = Vm::create(*system);
  if (!vm) return vm.error();
  auto memory = MemorySlots::create(**vm, {.size_bytes = uint64_t{2} << 20, .huge_pages = false});
  if (!memory) return memory.error();
  SKIFF_RETURN_IF_ERROR((*vm)->add_interrupt_controllers());
  auto doorbell = loop::EventNotifier::create();
  if (!doorbell) return doorbell.error();
  const devices::DoorbellAddress where = {.address = kDoorbellAddress, .size_bytes = 4};
  SKIFF_RETURN_IF_ERROR((*vm)->attach(where, *doorbell));
  const auto measure = [&]() -> Result<void> {
    auto vcpu = make_vcpu(**vm, (*memory)->memory());
    if (!vcpu) return vcpu.error();
    const auto first = next_exit(**vcpu);
    if (!first) return first.error();
    int64_t last_ns = *first;
    for (uint32_t i = 1; i < kExits; ++i) {
      const auto exit = next_exit(**vcpu);
      if (!exit) return exit.error();
      last_ns = *exit;
    }
    const auto end = next_exit(**vcpu);
    if (!end) return end.error();
    costs.exit_ns = static_cast<double>(last_ns - *first) / (kExits - 1);
    costs.doorbell_ns =
        std::max(0.0, (static_cast<double>(*end - last_ns) - costs.exit_ns) / kDoorbells);
    return {};
  };
  const auto measured = measure();
  (*vm)->detach(where, *doorbell);
  return measured;
}

}  // namespace skiff::vmm
