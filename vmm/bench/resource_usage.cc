// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/resource_usage.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

int64_t to_ns(const timeval& time) { return time.tv_sec * 1'000'000'000 + time.tv_usec * 1'000; }

ResourceUsage usage_of(__rusage_who_t who) {
  rusage usage = {};
  ::getrusage(who, &usage);
  return {to_ns(usage.ru_utime) + to_ns(usage.ru_stime),
          static_cast<uint64_t>(usage.ru_nvcsw + usage.ru_nivcsw)};
}

// The number by which perf_event_open() knows the tracepoint. 0: not to be seen.
uint64_t tracepoint_number(const std::string& tracepoint) {
  for (const char* root : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
    std::ifstream file(std::string(root) + "/events/" + tracepoint + "/id");
    uint64_t number = 0;
    if (file >> number) return number;
  }
  return 0;
}

}  // namespace

ResourceUsage ResourceUsage::now() { return usage_of(RUSAGE_SELF).since(usage_of(RUSAGE_THREAD)); }

Result<SyscallCounter> SyscallCounter::create(const std::string& tracepoint) {
  const uint64_t number = tracepoint_number(tracepoint);
  if (number == 0)
    return Error(ErrorKind::kUnsupported, "No tracepoint " + tracepoint + " (is tracefs mounted?)");
  perf_event_attr wanted = {};
  wanted.type = PERF_TYPE_TRACEPOINT;
  wanted.size = sizeof(wanted);
  wanted.config = number;
  wanted.disabled = 1;
  wanted.inherit = 1;
  const long fd = ::syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) return Error::from_errno(errno, "Counting " + tracepoint);
  return SyscallCounter(loop::UniqueFd(static_cast<int>(fd)));
}

void SyscallCounter::enable() { ::ioctl(fd_.get(), PERF_EVENT_IOC_ENABLE, 0); }
void SyscallCounter::disable() { ::ioctl(fd_.get(), PERF_EVENT_IOC_DISABLE, 0); }

uint64_t SyscallCounter::count() const {
  uint64_t count = 0;
  if (::read(fd_.get(), &count, sizeof(count)) != sizeof(count)) return 0;
  return count;
}

}  // namespace skiff::vmm
