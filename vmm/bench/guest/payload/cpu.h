// SPDX-License-Identifier: GPL-2.0-or-later
// The few instructions that C++ has no words for: ports, device registers, waiting.
//
// Freestanding, CPL 3 of the payload guest. Thread: any processor.
#pragma once

#include <cstdint>

#include "vmm/bench/guest/payload/machine_abi.h"

namespace skiff::vmm::payload {

inline void out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

template <typename T>
T mmio_read(uint64_t address) {
  return *reinterpret_cast<const volatile T*>(address);
}
template <typename T>
void mmio_write(uint64_t address, T value) {
  *reinterpret_cast<volatile T*>(address) = value;
}
// As two halves, which virtio's 64-bit registers are written by (virtio 1.2, 4.1.3.1 and 4.2.2).
inline void mmio_write64(uint64_t address, uint64_t value) {
  mmio_write<uint32_t>(address, static_cast<uint32_t>(value));
  mmio_write<uint32_t>(address + 4, static_cast<uint32_t>(value >> 32));
}

inline void pause() { __builtin_ia32_pause(); }

// Halts this processor until it has counted another number of interrupts than `seen`.
inline void wait_for_interrupt(uint64_t seen) {
  uint64_t call = PAYLOAD_CALL_WAIT;
  __asm__ volatile("ud2" : "+a"(call) : "D"(seen) : "memory", "cc");
}
[[noreturn]] inline void park() {
  __asm__ volatile("ud2" : : "a"(PAYLOAD_CALL_PARK));
  __builtin_unreachable();
}

}  // namespace skiff::vmm::payload
