// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/msi_target.h"

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/msi.h"

namespace skiff::vmm {
namespace {

constexpr uint64_t kAddressWindow = 0xfee;  // Bits 31:20.
constexpr uint64_t kLogicalMode = 1u << 2;
constexpr uint32_t kXapicBroadcast = 0xff;
constexpr uint32_t kX2apicBroadcast = 0xffffffff;
constexpr uint32_t kFixed = 0;  // Delivery modes, bits 10:8 of the data.
constexpr uint32_t kLowestPriority = 1;
// A logical destination: a cluster of 16 APIC IDs, and a bit for each of them.
constexpr uint32_t kClusterShift = 16;
constexpr uint32_t kClusterSize = 16;

uint32_t destination_of(uint64_t address) {
  const auto low = static_cast<uint32_t>((address >> 12) & 0xff);
  const auto extended = static_cast<uint32_t>((address >> 5) & 0x7f);
  const auto high = static_cast<uint32_t>(address >> 40);
  return low | extended << 8 | high << 8;
}

bool is_logical_member(uint32_t destination, uint32_t apic_id) {
  return apic_id / kClusterSize == destination >> kClusterShift &&
         (destination >> (apic_id % kClusterSize) & 1) != 0;
}

}  // namespace

MsiTarget decode_msi_target(const devices::MsiMessage& message,
                            std::span<const uint32_t> apic_ids) {
  MsiTarget target;
  const uint32_t delivery = message.data >> 8 & 7;
  if ((message.address >> 20 & 0xfff) != kAddressWindow) return target;
  if (delivery != kFixed && delivery != kLowestPriority) return target;
  const uint32_t destination = destination_of(message.address);
  const bool logical = (message.address & kLogicalMode) != 0;
  if (destination == kX2apicBroadcast || destination == kXapicBroadcast) {
    target.kind = MsiTarget::Kind::kBroadcast;
    return target;
  }
  for (size_t vcpu = 0; vcpu < apic_ids.size(); ++vcpu) {
    const bool is_member =
        logical ? is_logical_member(destination, apic_ids[vcpu]) : destination == apic_ids[vcpu];
    if (is_member) target.vcpus.push_back(static_cast<uint32_t>(vcpu));
  }
  target.kind = target.vcpus.empty() ? MsiTarget::Kind::kNobody : MsiTarget::Kind::kVcpus;
  return target;
}

}  // namespace skiff::vmm
