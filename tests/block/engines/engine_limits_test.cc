// SPDX-License-Identifier: GPL-2.0-or-later
// Engines where the system gives less than usual: no io_uring, no locked memory, no descriptors.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using loop::EventLoop;

// From now on `call` fails with `os_error` in this process.
bool refuse(long call, int os_error) {
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(os_error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// A loop and a file, and an engine between them.
struct Bench {
  Bench() {
    auto made_pool = loop::WorkerPool::create({});
    if (made_pool) pool = *std::move(made_pool);
    fd.reset(::open(dir.make_file("file", pattern(4096)).c_str(), O_RDWR | O_CLOEXEC));
  }
  bool make_loop(EventLoop::Backend backend = EventLoop::Backend::kAuto) {
    auto made = EventLoop::create({.backend = backend});
    if (made) loop = *std::move(made);
    return loop != nullptr;
  }
  loop::Result<std::unique_ptr<IoEngine>> make_engine(IoEngineKind kind) {
    return make_io_engine(kind, {.fd = fd.get(), .direct_io = true}, *loop, *pool);
  }
  // Does a read through `engine` give what is in the file?
  bool reads(IoEngine& engine) const {
    std::array<std::byte, 4096> buffer = {};
    const iovec iov = {buffer.data(), buffer.size()};
    int32_t got = 0;
    IoRequest request = {
        .length_bytes = buffer.size(),
        .iov = {&iov, 1},
        .done = [](IoRequest& io, int32_t result) { *static_cast<int32_t*>(io.owner) = result; },
        .owner = &got};
    IoRequest* one = &request;
    engine.submit({&one, 1});
    while (engine.in_flight() > 0) loop->run_once(EventLoop::Wait::kUntilEvent);
    return got == 4096 && std::ranges::equal(buffer, pattern(4096));
  }

  TempDir dir;
  loop::UniqueFd fd;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<loop::WorkerPool> pool;
};

// 0 if all is as the test's name says, else where it was not.
int refused_at_start() {
  Bench bench;
  if (!refuse(SYS_io_uring_setup, EPERM)) return 1;
  if (!bench.make_loop() || bench.loop->uses_io_uring()) return 2;
  const auto ring = bench.make_engine(IoEngineKind::kIoUring);
  if (ring || ring.error().kind() != loop::ErrorKind::kUnsupported) return 3;
  if (ring.error().message().find("kernel.io_uring_disabled") == std::string::npos) return 4;
  auto automatic = bench.make_engine(IoEngineKind::kAuto);
  return automatic && bench.reads(**automatic) ? 0 : 5;
}

int refused_later() {
  Bench before;
  Bench after;
  if (!before.make_loop(EventLoop::Backend::kIoUring)) return 0;  // Refused at start: see above.
  auto engine = before.make_engine(IoEngineKind::kIoUring);
  if (!engine || !before.reads(**engine)) return 1;
  if (!refuse(SYS_io_uring_setup, EPERM)) return 2;
  // What is there goes on, and what comes now does without.
  if (!before.reads(**engine)) return 3;
  auto second = before.make_engine(IoEngineKind::kIoUring);
  if (!second || !before.reads(**second)) return 4;
  if (!after.make_loop() || after.loop->uses_io_uring()) return 5;
  if (after.make_engine(IoEngineKind::kIoUring)) return 6;
  auto automatic = after.make_engine(IoEngineKind::kAuto);
  return automatic && after.reads(**automatic) ? 0 : 7;
}

int fixed_files_refused() {
  Bench bench;
  if (!bench.make_loop(EventLoop::Backend::kIoUring)) return 0;
  // Turned once, the ring is set up; only then it is refused what it can do without.
  bench.loop->run_once(EventLoop::Wait::kNo);
  if (!refuse(SYS_io_uring_register, EACCES)) return 1;
  if (bench.loop->register_file(bench.fd.get())) return 2;
  auto engine = bench.make_engine(IoEngineKind::kIoUring);
  return engine && bench.reads(**engine) ? 0 : 3;
}

int linux_aio_refused() {
  Bench bench;
  if (!bench.make_loop()) return 1;
  if (!refuse(SYS_io_setup, ENOSYS)) return 2;
  const auto engine = bench.make_engine(IoEngineKind::kLinuxAio);
  if (engine || engine.error().kind() != loop::ErrorKind::kUnsupported) return 3;
  return engine.error().message().find("no aio") != std::string::npos ? 0 : 4;
}

int no_locked_memory() {
  const rlimit none = {};
  if (setrlimit(RLIMIT_MEMLOCK, &none) != 0) return 1;
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> nothing = {};
  if (syscall(SYS_capset, &header, nothing.data()) != 0) return 2;
  Bench bench;
  if (!bench.make_loop()) return 3;
  for (const IoEngineKind kind : kAllEngineKinds) {
    auto engine = bench.make_engine(kind);
    if (!engine && kind == IoEngineKind::kIoUring && !bench.loop->uses_io_uring()) continue;
    if (!engine) return 10 + static_cast<int>(kind);
    // Not really an O_DIRECT file, so that aio is served by io_submit() itself.
    if (!bench.reads(**engine)) return 20 + static_cast<int>(kind);
  }
  return 0;
}

int no_descriptors() {
  Bench bench;
  if (!bench.make_loop()) return 1;
  // The undefined-behaviour sanitizer needs descriptors when it meets a type for the first time:
  // all of them have been met when this is over.
  SKIFF_LOG(kWarn, "No more descriptors from here on");
  for (const auto backend : {EventLoop::Backend::kEpoll, EventLoop::Backend::kAuto}) {
    Bench other;
    if (!other.make_loop(backend)) return 5;
    for (const IoEngineKind kind : kAllEngineKinds) {
      auto engine = other.make_engine(kind);
      if (engine && !other.reads(**engine)) return 6;
    }
  }
  const int next_fd = fcntl(bench.fd.get(), F_DUPFD_CLOEXEC, 0);
  close(next_fd);
  const rlimit used_up = {.rlim_cur = static_cast<rlim_t>(next_fd),
                          .rlim_max = static_cast<rlim_t>(next_fd)};
  if (setrlimit(RLIMIT_NOFILE, &used_up) != 0) return 2;
  const auto second_loop = EventLoop::create();
  if (second_loop || second_loop.error().os_error() != EMFILE) return 3;
  for (const IoEngineKind kind : kAllEngineKinds) {
    auto engine = bench.make_engine(kind);
    if (kind == IoEngineKind::kLinuxAio) {
      if (engine || engine.error().os_error() != EMFILE) return 4;
      continue;
    }
    if (!engine && kind == IoEngineKind::kIoUring && !bench.loop->uses_io_uring()) continue;
    if (!engine) return 10 + static_cast<int>(kind);
    if (!bench.reads(**engine)) return 20 + static_cast<int>(kind);
  }
  return 0;
}

struct LimitCase {
  const char* name;
  int (*run)();
};

class EngineLimitsTest : public ::testing::TestWithParam<LimitCase> {};

// In a process of its own: none of this can be taken back.
TEST_P(EngineLimitsTest, HasADefinedOutcome) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(_exit(GetParam().run()), ::testing::ExitedWithCode(0), "");
}

constexpr std::array kLimitCases = {
    LimitCase{"IoUringRefusedAtStartLeavesThePool", refused_at_start},
    LimitCase{"IoUringRefusedLaterLeavesWhatIsThere", refused_later},
    LimitCase{"RefusedFixedFilesAreDoneWithout", fixed_files_refused},
    LimitCase{"RefusedAioIsExplained", linux_aio_refused},
    LimitCase{"WithoutLockedMemoryAllEnginesWork", no_locked_memory},
    LimitCase{"WithoutDescriptorsEnginesWorkOrSayWhy", no_descriptors}};

INSTANTIATE_TEST_SUITE_P(Limits, EngineLimitsTest, ::testing::ValuesIn(kLimitCases),
                         [](const auto& its) { return std::string(its.param.name); });

}  // namespace
}  // namespace skiff::block
