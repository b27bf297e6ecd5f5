// SPDX-License-Identifier: GPL-2.0-or-later
// vCPUs with loops of their own, and I/O on these, for tests.
//
// Thread: the test's is the main loop's. Ownership: a test owns all of it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "tests/vmm/vcpu_thread_fixture.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {

inline constexpr uint32_t kBlockBytes = 4096;
inline constexpr uint32_t kBlocks = 256;

// A file of kBlocks blocks, each filled with its number; read around the page cache where the file
// system can.
class NumberedFile {
 public:
  NumberedFile() {
    std::string path = testing::TempDir() + "skiff-vcpu-XXXXXX";
    loop::UniqueFd file(::mkstemp(path.data()));
    EXPECT_TRUE(file);
    std::vector<uint8_t> block(kBlockBytes);
    for (uint32_t i = 0; i < kBlocks; ++i) {
      block.assign(kBlockBytes, static_cast<uint8_t>(i));
      EXPECT_EQ(::write(file.get(), block.data(), kBlockBytes), int64_t{kBlockBytes});
    }
    EXPECT_EQ(::fsync(file.get()), 0);
    fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (!fd_) fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(fd_);
    ::unlink(path.c_str());
  }
  int fd() const { return fd_.get(); }

 private:
  loop::UniqueFd fd_;
};

// Reads of 4 KiB on one loop, the next submitted by the completion of the one before. The counters
// may be read on any thread.
class ReadChain : loop::RingOperation {
 public:
  ReadChain(loop::EventLoop& loop, const NumberedFile& file) : loop_(loop), file_(file) {
    done = [](loop::RingOperation& self, int32_t result, uint32_t) {
      static_cast<ReadChain&>(self).on_done(result);
    };
    buffer_.reset(static_cast<uint8_t*>(::aligned_alloc(kBlockBytes, kBlockBytes)));
  }

  // Home thread.
  void submit() {
    ++block_;
    io_uring_prep_read(loop_.next_sqe(*this), file_.fd(), buffer_.get(), kBlockBytes,
                       uint64_t{kBlockBytes} * (block_ % kBlocks));
    in_flight_ = true;
  }
  // Any thread: reads `count` one after the other.
  void start(uint32_t count) {
    left_ = count;
    loop_.post([this] { submit(); });
  }
  bool in_flight() const { return in_flight_; }
  uint32_t done_here() const { return done_here_; }
  uint32_t wrong() const { return wrong_; }  // Elsewhere, or with other than what was asked for.

  std::function<void()> on_read;  // Home thread, after each.

 private:
  struct Free {
    void operator()(uint8_t* memory) const { ::free(memory); }
  };

  void on_done(int32_t result) {
    in_flight_ = false;
    const bool right = loop_.is_current() && result == int32_t{kBlockBytes} &&
                       buffer_.get()[17] == static_cast<uint8_t>(block_ % kBlocks);
    if (on_read) on_read();
    if (left_ > 0 && --left_ > 0) submit();
    ++(right ? done_here_ : wrong_);  // Last: the test may end now.
  }

  loop::EventLoop& loop_;
  const NumberedFile& file_;
  std::unique_ptr<uint8_t, Free> buffer_;
  uint32_t block_ = 0;
  std::atomic<uint32_t> left_{0};
  std::atomic<bool> in_flight_{false};
  std::atomic<uint32_t> done_here_{0};
  std::atomic<uint32_t> wrong_{0};
};

class VcpuLoopPayload : public VcpuThreadPayload {
 protected:
  void TearDown() override { vcpus_.clear(); }  // Before what a test has on the vCPU's thread.

  void create_with_loop(VcpuMode mode, const Code& code, VcpuThread::Options options = {}) {
    options.with_loop = true;
    create(1, mode, code, options);
    if (vcpus_.empty()) return;
    if (vcpus_[0]->loop() == nullptr) GTEST_SKIP() << "NO IO_URING HERE";
  }
  VcpuThread& vcpu() { return *vcpus_[0]; }
  loop::EventLoop& vcpu_loop() { return *vcpu().loop(); }

  // Runs `work` on the vCPU's loop and returns when it has.
  void on_vcpu(std::function<void()> work) {
    bool ran = false;
    vcpu_loop().post([this, &ran, &work] {
      work();
      loop_->post([&ran] { ran = true; });
    });
    turn_until([&ran] { return ran; });
  }
  // Waits without the main loop: nothing is sent to the vCPU.
  template <typename Condition>
  static void spin_until(const Condition& condition) {
    while (!condition()) ::sched_yield();
  }
  uint64_t interruptions() {
    return vcpu().counters()[static_cast<size_t>(VcpuExitKind::kInterrupted)].load();
  }

  NumberedFile file_;
};

}  // namespace skiff::vmm
