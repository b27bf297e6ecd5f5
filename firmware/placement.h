// SPDX-License-Identifier: GPL-2.0-or-later
// Placement: who gets which range of the guest's memory at boot.
//
// Every range that is written goes through here: it must be RAM, and it must not overlap anything
// that is there already, be it the kernel, our own tables or a reserved range of the memory map.
// Thread: one at a time. Ownership: borrows the memory; lives only while a kernel is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/memory_map.h"
#include "loop/result.h"

namespace skiff::firmware {

class Placement {
 public:
  Placement(const devices::GuestMemory& memory, std::span<const E820Entry> memory_map);

  // The host bytes of [base, base + size), from now on taken. `name` is for messages ("the
  // kernel's segment 2"). kCorrupt when the range wraps, is empty or overlaps another,
  // kInvalidArgument when it is not RAM.
  loop::Result<std::span<std::byte>> claim(const std::string& name, devices::GuestAddress base,
                                           uint64_t size_bytes);

  // claim() and copy.
  loop::Result<void> put(const std::string& name, devices::GuestAddress base,
                         std::span<const std::byte> bytes);

  struct Claim {
    devices::GuestAddress base;
    std::span<std::byte> bytes;
  };
  // The highest free page-aligned range that ends at or below `end`. kInvalidArgument when there
  // is none: the guest has too little memory.
  loop::Result<Claim> claim_high(const std::string& name, uint64_t size_bytes, uint64_t end);

  uint64_t memory_bytes() const { return memory_.size_bytes(); }

 private:
  struct Taken {
    std::string name;
    uint64_t begin;
    uint64_t end;
  };
  const Taken* find_overlap(uint64_t begin, uint64_t end) const;

  const devices::GuestMemory& memory_;
  std::vector<Taken> taken_;
};

}  // namespace skiff::firmware
