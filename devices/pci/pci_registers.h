// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers of the PCI configuration space (PCI Local Bus Specification 3.0, chapter 6).
//
// Thread: any; constants only.
#pragma once

#include <cstdint>

namespace skiff::devices::pci {

// Header type 0 (6.1, figure 6-1). Offsets in bytes.
inline constexpr uint16_t kVendorId = 0x00;
inline constexpr uint16_t kDeviceId = 0x02;
inline constexpr uint16_t kCommand = 0x04;
inline constexpr uint16_t kStatus = 0x06;
inline constexpr uint16_t kRevision = 0x08;  // The class code follows in the upper three bytes.
inline constexpr uint16_t kCacheLineSize = 0x0c;
inline constexpr uint16_t kBar0 = 0x10;
inline constexpr uint16_t kSubsystemVendorId = 0x2c;
inline constexpr uint16_t kSubsystemId = 0x2e;
inline constexpr uint16_t kCapabilityPointer = 0x34;
inline constexpr uint16_t kInterruptLine = 0x3c;
inline constexpr uint16_t kInterruptPin = 0x3d;
inline constexpr uint16_t kFirstCapability = 0x40;

inline constexpr uint16_t kConventionalSizeBytes = 0x100;
inline constexpr uint16_t kExtendedSizeBytes = 0x1000;
inline constexpr uint8_t kBarCount = 6;

// Command register (6.2.2).
inline constexpr uint16_t kCommandIo = 1 << 0;
inline constexpr uint16_t kCommandMemory = 1 << 1;
inline constexpr uint16_t kCommandBusMaster = 1 << 2;
inline constexpr uint16_t kCommandInterruptDisable = 1 << 10;

// Status register (6.2.3).
inline constexpr uint16_t kStatusCapabilities = 1 << 4;

// Base address registers (6.2.5.1).
inline constexpr uint32_t kBarIo = 1 << 0;
inline constexpr uint32_t kBarMemory64 = 2 << 1;
inline constexpr uint32_t kBarPrefetchable = 1 << 3;

// Capability ids (appendix H) and MSI-X (6.8.2).
inline constexpr uint8_t kCapabilityVendor = 0x09;
inline constexpr uint8_t kCapabilityMsix = 0x11;
inline constexpr uint16_t kMsixEnable = 1 << 15;
inline constexpr uint16_t kMsixFunctionMask = 1 << 14;

// Class codes (appendix D): base class, subclass, interface.
inline constexpr uint32_t kClassHostBridge = 0x060000;

}  // namespace skiff::devices::pci
