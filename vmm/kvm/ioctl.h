// SPDX-License-Identifier: GPL-2.0-or-later
// ioctl() on KVM's descriptors, and the variable-length structures it takes.
//
// Thread: any. Ownership: value types.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vmm/cpuid.h"

namespace skiff::vmm {

// Repeats an ioctl that a signal interrupted. Not for KVM_RUN, whose EINTR means something.
template <typename T>
int kvm_ioctl(int fd, unsigned long request, T* argument) {
  int result;
  do result = ::ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

// What every structure of KVM's with entries at its end begins with. KVM's own declarations of them
// have a wrong size in C++ where the header spells the array with an empty member, and that spoils
// the ioctl numbers as well; so both are stated here.
struct KvmArrayHeader {
  uint32_t count = 0;
  uint32_t flags = 0;
};
inline constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, KvmArrayHeader);
inline constexpr unsigned long kSetGsiRouting = _IOW(KVMIO, 0x6a, KvmArrayHeader);
inline constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, KvmArrayHeader);
inline constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, KvmArrayHeader);
// The same of kvm_xsave, which has 4096 bytes and then what KVM_CAP_XSAVE2 says.
struct KvmXsave {
  uint32_t region[1024];
};
inline constexpr unsigned long kSetXsave = _IOW(KVMIO, 0xa5, KvmXsave);

// The header and `capacity` entries behind it.
template <typename Entry>
class KvmArray {
 public:
  static_assert(alignof(Entry) <= alignof(uint64_t) && sizeof(KvmArrayHeader) == 8);

  explicit KvmArray(size_t capacity)
      : words_(1 + (capacity * sizeof(Entry) + sizeof(uint64_t) - 1) / sizeof(uint64_t)) {
    header()->count = static_cast<uint32_t>(capacity);
  }
  KvmArrayHeader* header() { return reinterpret_cast<KvmArrayHeader*>(words_.data()); }
  Entry* entries() { return reinterpret_cast<Entry*>(words_.data() + 1); }

 private:
  std::vector<uint64_t> words_;  // Aligned for both.
};

class CpuidBuffer {
 public:
  explicit CpuidBuffer(uint32_t capacity) : array_(capacity) {}
  explicit CpuidBuffer(const CpuidTable& table) : CpuidBuffer(static_cast<uint32_t>(table.size())) {
    for (size_t i = 0; i < table.size(); ++i) {
      const CpuidEntry& from = table[i];
      array_.entries()[i] = kvm_cpuid_entry2{
          .function = from.function,
          .index = from.index,
          .flags = from.index_matters ? uint32_t{KVM_CPUID_FLAG_SIGNIFCANT_INDEX} : 0,
          .eax = from.eax,
          .ebx = from.ebx,
          .ecx = from.ecx,
          .edx = from.edx};
    }
  }

  KvmArrayHeader* get() { return array_.header(); }
  CpuidTable table() {
    CpuidTable result;
    result.reserve(array_.header()->count);
    for (uint32_t i = 0; i < array_.header()->count; ++i) {
      const kvm_cpuid_entry2& from = array_.entries()[i];
      result.push_back({.function = from.function,
                        .index = from.index,
                        .index_matters = (from.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                        .eax = from.eax,
                        .ebx = from.ebx,
                        .ecx = from.ecx,
                        .edx = from.edx});
    }
    return result;
  }

 private:
  KvmArray<kvm_cpuid_entry2> array_;
};

}  // namespace skiff::vmm
