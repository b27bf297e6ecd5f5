// SPDX-License-Identifier: GPL-2.0-or-later
// MemoryTable: what a front end shares of its memory, mapped, and a GuestMemory over it.
//
// A region has an address in the guest, which buffers are told in, and one in the front end's
// process, which rings are told in. Thread: main loop; guest() from the homes of queues, all of
// which are stopped while the table changes. Ownership: owns the mappings; whoever uses guest()
// goes first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "loop/result.h"

namespace skiff::devices {

class MemoryTable {
 public:
  static constexpr size_t kRegionsMax = 32;

  // The same object for ever, whatever becomes of the table.
  const GuestMemory& guest() const { return guest_; }
  size_t region_count() const { return regions_.size(); }

  // kCorrupt when the region wraps, overlaps another, is not aligned to pages or not within its
  // file; kExhausted when there are too many. The table stays as it was then.
  loop::Result<void> add(const VhostMemoryRegion& region, int fd);
  // kNotFound when there is none with these addresses and this size.
  loop::Result<void> remove(const VhostMemoryRegion& region);
  void clear();

  // Where the guest sees what the front end has at this address of its own.
  std::optional<GuestAddress> guest_address(uint64_t user_address) const;
  // The front end has cut a file short: what it shared reads as zeroes.
  bool has_faulted() const;

 private:
  struct Region {
    VhostMemoryRegion shared;
    SharedMapping mapping;
  };
  void update_guest();

  std::vector<Region> regions_;  // Sorted by guest address.
  GuestMemory guest_;
};

}  // namespace skiff::devices
