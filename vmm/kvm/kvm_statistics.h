// SPDX-License-Identifier: GPL-2.0-or-later
// What KVM counts about a vCPU or a VM, from its binary statistics descriptor.
//
// Thread: any. Source: Linux Documentation/virt/kvm/api.rst, 4.133 KVM_GET_STATS_FD.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {

struct KvmStatistic {
  std::string name;  // "exits", "mmio_exits", "halt_exits", ...
  uint64_t value = 0;
};

// Single-valued statistics only; histograms are left out. kCorrupt when the file contradicts
// itself.
loop::Result<std::vector<KvmStatistic>> read_kvm_statistics(int fd);

}  // namespace skiff::vmm
