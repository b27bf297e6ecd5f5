// SPDX-License-Identifier: GPL-2.0-or-later
// What measurements on several threads need: work done on another thread's event loop, CPUs to put
// threads on, a thread's CPU time.
//
// Thread: any, but for run_on_loop() not the loop's own; it blocks. Ownership: none.
#pragma once

#include <cstdint>
#include <functional>
#include <semaphore>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::vmm {

// Returns when it has been done.
inline void run_on_loop(loop::EventLoop& loop, const std::function<void()>& work) {
  std::binary_semaphore done(0);
  loop.post([&] {
    work();
    done.release();
  });
  done.acquire();
}

// Each CPU that the process may use, on its own; at least one.
loop::Result<std::vector<loop::CpuSet>> usable_cpus();

// CPU time of the calling thread so far.
int64_t thread_cpu_ns();

}  // namespace skiff::vmm
