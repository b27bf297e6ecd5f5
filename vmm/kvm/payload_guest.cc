// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/payload_guest.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/guest_memory.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

constexpr uint64_t kPml4 = 0x1000;
constexpr uint64_t kPdpt = 0x2000;
constexpr uint64_t kPageDirectory = 0x3000;
constexpr uint64_t kGdt = 0x4000;
constexpr uint64_t kTss = 0x5000;  // Up to 0x7069.
constexpr uint64_t kIdt = 0x8000;  // One page.
constexpr uint64_t kTopPageDirectory = 0xc000;

constexpr uint64_t kPageUserWritable = 0x7;
constexpr uint64_t kPageLarge = 0x80;

// Intel SDM vol. 3A 3.4.5 and 8.7.
constexpr uint64_t kCode64 = 0x00af'9b00'0000'ffff;
constexpr uint64_t kData = 0x00cf'9300'0000'ffff;
constexpr uint64_t kUserData = 0x00cf'f300'0000'ffff;
constexpr uint64_t kUserCode64 = 0x00af'fb00'0000'ffff;
constexpr uint32_t kTssBytes = 0x68;
constexpr uint32_t kIoBitmapBytes = 65536 / 8;
constexpr uint32_t kTssLimit = kTssBytes + kIoBitmapBytes;  // The byte of ones behind the bitmap.
constexpr size_t kGdtEntries = 8;

template <typename T>
bool put(const devices::GuestMemory& memory, uint64_t address, const T& value) {
  return memory.store(devices::GuestAddress{address}, value);
}

}  // namespace

bool write_payload_tables(const devices::GuestMemory& memory) {
  std::array<uint64_t, 512> directory{};
  std::array<uint64_t, 512> top_directory{};
  for (size_t i = 0; i < directory.size(); ++i) {
    directory[i] = i * 2 * kMiB | kPageLarge | kPageUserWritable;
    top_directory[i] = 3 * kGiB | directory[i];
  }
  const uint64_t tss_descriptor = uint64_t{kTssLimit & 0xffff} | (kTss & 0xff'ffff) << 16 |
                                  uint64_t{0x8b} << 40 | (kTss >> 24 & 0xff) << 56;
  const std::array<uint64_t, kGdtEntries> gdt = {
      0, 0, kCode64, kData, kUserData, kUserCode64, tss_descriptor, kTss >> 32};
  std::array<uint8_t, kTssLimit + 1> tss{};
  tss[0x4] = kPayloadInterruptStackTop & 0xff;  // RSP0.
  tss[0x5] = kPayloadInterruptStackTop >> 8 & 0xff;
  tss[0x66] = kTssBytes;  // Where the I/O bitmap begins.
  tss[kTssLimit] = 0xff;
  return put(memory, kPml4, kPdpt | kPageUserWritable) &&
         put(memory, kPdpt, kPageDirectory | kPageUserWritable) &&
         put(memory, kPdpt + 3 * sizeof(uint64_t), kTopPageDirectory | kPageUserWritable) &&
         put(memory, kPageDirectory, directory) && put(memory, kTopPageDirectory, top_directory) &&
         put(memory, kGdt, gdt) && put(memory, kTss, tss);
}

bool set_payload_vector(const devices::GuestMemory& memory, uint8_t vector, uint64_t handler) {
  constexpr uint64_t kInterruptGate = 0x8e;
  const std::array<uint64_t, 2> gate = {(handler & 0xffff) | uint64_t{0x10} << 16 |
                                            kInterruptGate << 40 | (handler >> 16 & 0xffff) << 48,
                                        handler >> 32};
  return put(memory, kIdt + uint64_t{vector} * sizeof(gate), gate);
}

bool write_payload_code(const devices::GuestMemory& memory, std::span<const uint8_t> code,
                        uint64_t address) {
  return memory.write({address}, std::as_bytes(code));
}

VcpuBootState payload_boot_state(VcpuMode mode, uint64_t rip, uint64_t rsp) {
  VcpuBootState state;
  state.mode = mode;
  state.rip = rip;
  state.rsp = rsp;
  state.cr3 = kPml4;
  state.gdt = {.base = kGdt, .limit = kGdtEntries * 8 - 1};
  state.idt = {.base = kIdt, .limit = 0xfff};
  state.tss_base = kTss;
  state.tss_limit = kTssLimit;
  return state;
}

}  // namespace skiff::vmm
