// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/payload/processors.h"

#include <cstdint>

#include "vmm/bench/driver/tick_scale.h"
#include "vmm/bench/guest/payload/console.h"
#include "vmm/bench/guest/payload/cpu.h"
#include "vmm/bench/guest/payload/machine_abi.h"

// NOLINTBEGIN(readability-identifier-naming): the assembler's names, in start.S.
extern "C" {
extern uint64_t payload_gdt[];
extern uint64_t payload_idt[];
extern uint8_t payload_tss[];
extern uint8_t payload_interrupt_stacks[];
extern volatile uint32_t payload_other_cpus;
extern uint32_t payload_line_device;
extern const uint8_t payload_trampoline[];
extern const uint8_t payload_trampoline_end[];
extern const uint8_t payload_exceptions[];
extern const uint8_t payload_interrupt[];
extern const uint8_t payload_line_interrupt[];
extern const uint8_t payload_undefined[];
}
// NOLINTEND(readability-identifier-naming)

namespace skiff::vmm::payload {
namespace {

// Intel SDM vol. 3A, 11.4.1.
constexpr uint64_t kLocalApic = 0xfee0'0000;
constexpr uint64_t kApicId = kLocalApic + 0x20;
constexpr uint64_t kApicSpurious = kLocalApic + 0xf0;
constexpr uint64_t kApicCommand = kLocalApic + 0x300;
constexpr uint64_t kApicTimer = kLocalApic + 0x320;
constexpr uint64_t kApicTimerCount = kLocalApic + 0x380;
constexpr uint64_t kApicTimerDivide = kLocalApic + 0x3e0;
constexpr uint32_t kApicEnable = 0x100;
constexpr uint32_t kDivideByOne = 0xb;
constexpr uint32_t kToAllOthers = 0xc'0000;
constexpr uint32_t kInit = 0x4500;
constexpr uint32_t kStartUp = 0x4600;

// Intel 82093AA, 3.
constexpr uint64_t kIoApicSelect = 0xfec0'0000;
constexpr uint64_t kIoApicWindow = 0xfec0'0010;
constexpr uint32_t kIoApicRedirection = 0x10;
constexpr uint32_t kFirstLine = 5;  // Below are timer, keyboard and serial ports.
constexpr uint32_t kLines = 24;
constexpr uint32_t kLevel = 0x8000;

constexpr uint32_t kExceptions = 32;
constexpr uint64_t kExceptionStubBytes = 16;
constexpr uint32_t kInvalidOpcode = 6;

// Intel SDM vol. 3A, 6.14.1.
void set_gate(uint32_t vector, const uint8_t* handler) {
  constexpr uint64_t kInterruptGate = 0x8e;
  constexpr uint64_t kCode64 = 0x10;
  const auto address = reinterpret_cast<uint64_t>(handler);
  payload_idt[vector * 2] =
      (address & 0xffff) | kCode64 << 16 | kInterruptGate << 40 | (address >> 16 & 0xffff) << 48;
  payload_idt[vector * 2 + 1] = address >> 32;
}

// Intel SDM vol. 3A, 8.7. The bitmap behind the last TSS lets every processor use every port.
void set_tss(uint32_t cpu) {
  constexpr uint32_t kTssDescriptors = 6;  // The first one's place in the GDT.
  uint8_t* tss = payload_tss + cpu * uint64_t{PAYLOAD_TSS_STRIDE};
  const auto base = reinterpret_cast<uint64_t>(tss);
  const auto stack = reinterpret_cast<uint64_t>(payload_interrupt_stacks) +
                     uint64_t{cpu + 1} * PAYLOAD_INTERRUPT_STACK_BYTES;
  const uint32_t bitmap = (PAYLOAD_CPUS_MAX - cpu) * PAYLOAD_TSS_STRIDE;
  *reinterpret_cast<uint32_t*>(tss + 4) = static_cast<uint32_t>(stack);
  *reinterpret_cast<uint16_t*>(tss + 0x66) = static_cast<uint16_t>(bitmap);
  uint64_t* descriptor = payload_gdt + kTssDescriptors + uint64_t{cpu} * 2;
  descriptor[0] = (bitmap + PAYLOAD_IO_BITMAP_BYTES) | (base & 0xff'ffff) << 16 |
                  uint64_t{0x89} << 40 | (base >> 24 & 0xff) << 56;
  descriptor[1] = base >> 32;
}

void spin_for(uint64_t ticks) {
  const uint64_t begin = tick_now();
  while (tick_now() - begin < ticks) pause();
}

}  // namespace

void set_vectors() {
  for (uint32_t vector = 0; vector < kExceptions; ++vector)
    set_gate(vector, payload_exceptions + vector * kExceptionStubBytes);
  set_gate(PAYLOAD_VECTOR_INTERRUPT, payload_interrupt);
  set_gate(PAYLOAD_VECTOR_LINE, payload_line_interrupt);
  set_gate(kInvalidOpcode, payload_undefined);
}

void enable_local_apic() {
  mmio_write<uint32_t>(kApicSpurious, kApicEnable | 0xff);
  mmio_write<uint32_t>(kApicTimerDivide, kDivideByOne);
  mmio_write<uint32_t>(kApicTimer, PAYLOAD_VECTOR_INTERRUPT);  // One shot.
}

uint8_t local_apic_id() { return static_cast<uint8_t>(mmio_read<uint32_t>(kApicId) >> 24); }

void start_other_processors(uint32_t count) {
  if (count == 0) return;
  for (uint32_t cpu = 1; cpu < PAYLOAD_CPUS_MAX; ++cpu) set_tss(cpu);
  auto* target = reinterpret_cast<uint8_t*>(uint64_t{PAYLOAD_TRAMPOLINE});
  for (const uint8_t* at = payload_trampoline; at != payload_trampoline_end; ++at) *target++ = *at;
  // 9.4.4.1. All of them at once: nobody needs to know their numbers.
  mmio_write<uint32_t>(kApicCommand, kToAllOthers | kInit);
  constexpr uint64_t kTicks = 1'000'000;  // A millisecond, or less: virtual ones need no rest.
  spin_for(kTicks);
  mmio_write<uint32_t>(kApicCommand, kToAllOthers | kStartUp | PAYLOAD_TRAMPOLINE >> 12);
  constexpr uint64_t kPatienceTicks = 30'000'000'000;
  const uint64_t begin = tick_now();
  while (payload_other_cpus < count) {
    if (tick_now() - begin > kPatienceTicks)
      give_up("other processors do not start; there are", payload_other_cpus);
    pause();
  }
}

void route_line_interrupts(uint64_t device_base) {
  payload_line_device = static_cast<uint32_t>(device_base);
  for (uint32_t line = kFirstLine; line < kLines; ++line) {
    mmio_write<uint32_t>(kIoApicSelect, kIoApicRedirection + 2 * line + 1);
    mmio_write<uint32_t>(kIoApicWindow, uint32_t{local_apic_id()} << 24);
    mmio_write<uint32_t>(kIoApicSelect, kIoApicRedirection + 2 * line);
    mmio_write<uint32_t>(kIoApicWindow, kLevel | PAYLOAD_VECTOR_LINE);
  }
}

uint64_t interrupts_of(uint32_t cpu) {
  return *reinterpret_cast<const volatile uint64_t*>(payload_interrupt_stacks +
                                                     uint64_t{cpu} * PAYLOAD_INTERRUPT_STACK_BYTES);
}

void set_timer(uint64_t after_ns) {
  // KVM's local APICs count nanoseconds.
  constexpr uint64_t kMost = 0xffff'ffff;
  mmio_write<uint32_t>(kApicTimerCount, static_cast<uint32_t>(after_ns < kMost ? after_ns : kMost));
}

}  // namespace skiff::vmm::payload
