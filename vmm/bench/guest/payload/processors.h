// SPDX-License-Identifier: GPL-2.0-or-later
// The processors of the payload guest: vectors, local APICs, and how the others are started.
//
// Freestanding. Thread: as stated. Ownership: none.
#pragma once

#include <cstdint>

namespace skiff::vmm::payload {

// The boot processor, first of all: where faults and interrupts go.
void set_vectors();
// Each processor, once: it takes interrupts from now on. Its number is that given by start.S.
void enable_local_apic();
uint8_t local_apic_id();
// Starts `count` processors besides the boot processor and waits until they are there; they call
// payload_other_main(). All others that the machine has may be started too: they are parked.
void start_other_processors(uint32_t count);
// Lets the line interrupt of a virtio-mmio device reach the boot processor, whichever pin it is.
void route_line_interrupts(uint64_t device_base);
// How many interrupts processor `cpu` has taken. Any processor.
uint64_t interrupts_of(uint32_t cpu);
// An interrupt on this processor after so long. 0: none, and none that was asked for before.
void set_timer(uint64_t after_ns);

}  // namespace skiff::vmm::payload
