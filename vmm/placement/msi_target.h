// SPDX-License-Identifier: GPL-2.0-or-later
// Which vCPUs an MSI message is for (Intel SDM volume 3, "Message Signalled Interrupts").
//
// Thread: any; pure functions. Ownership: none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/core/msi.h"

namespace skiff::vmm {

struct MsiTarget {
  // Why there may be no single vCPU.
  enum class Kind : uint8_t {
    kVcpus,      // `vcpus`, one of them or all, as the message says.
    kBroadcast,  // Everybody.
    kNobody,     // No vCPU has this address.
    kOther,      // Not an interrupt that a vCPU's handler would see (SMI, NMI, INIT), or no MSI.
  };
  Kind kind = Kind::kOther;
  std::vector<uint32_t> vcpus;  // Indices, ascending.
};

// `apic_ids` by vCPU index. Of the destination, bits 19:12 of the address are bits 7:0, bits 11:5
// are bits 14:8 (KVM's extended destinations), bits 63:40 are bits 31:8 (x2APIC). In logical mode a
// guest numbers its CPUs as it likes; that it does so by their APIC IDs is an assumption that holds
// for Linux.
MsiTarget decode_msi_target(const devices::MsiMessage& message, std::span<const uint32_t> apic_ids);

}  // namespace skiff::vmm
