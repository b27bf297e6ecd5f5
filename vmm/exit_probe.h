// SPDX-License-Identifier: GPL-2.0-or-later
// What it costs that a guest's doorbell ends KVM_RUN, as far as that can be told before the guest
// runs.
//
// Thread: the vCPU's. Ownership: none.
#pragma once

#include <cstdint>

#include "loop/result.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// The median of KVM_RUN entered with an exit requested, times two: getting into the guest, out
// again and finding out why takes about as long again. Leaves the vCPU as it was.
loop::Result<int64_t> measure_exit_ns(Vcpu& vcpu);

}  // namespace skiff::vmm
