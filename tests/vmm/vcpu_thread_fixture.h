// SPDX-License-Identifier: GPL-2.0-or-later
// vCPU threads with small guests, a port that they use, and the main loop, for tests.
//
// Thread: the test's is the main loop's. Ownership: a test owns all of it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/bus.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "tests/vmm/kvm/payload_test_guest.h"
#include "vmm/kvm/payload_guest.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/vcpu_thread.h"

namespace skiff::vmm {

// Counts what the guest does at one port; each read gets the next number.
class CountingPort final : public devices::BusDevice {
 public:
  explicit CountingPort(loop::EventLoop& main_loop) : main_loop_(main_loop) {}

  void bus_read(uint64_t, std::span<uint8_t> data) override {
    devices::store_le(data, reads_.fetch_add(1) + 1);
    main_loop_.post([] {});  // The test waits for it.
  }
  void bus_write(uint64_t, std::span<const uint8_t> data) override {
    main_loop_.post([this, value = devices::load_le(data)] { written_.push_back(value); });
  }
  uint64_t reads() const { return reads_.load(); }
  const std::vector<uint64_t>& written() const { return written_; }  // Main loop.

 private:
  loop::EventLoop& main_loop_;
  std::atomic<uint64_t> reads_{0};
  std::vector<uint64_t> written_;
};

class VcpuThreadPayload : public testing::Test {
 protected:
  VcpuThreadPayload() : loop_(make_loop()), port_(*loop_) {
    EXPECT_TRUE(pio_.add(kTestPort, 4, port_));
  }
  static std::unique_ptr<loop::EventLoop> make_loop() {
    auto made = loop::EventLoop::create();
    SKIFF_CHECK(made.has_value());
    return *std::move(made);
  }
  VcpuSurroundings surroundings() {
    return {guest_.vm(), pio_, mmio_, *loop_,
            [this](const VcpuFailure& failure) { failures_.push_back(failure); }};
  }
  // Creates `count` vCPUs that start in `mode` with their index in RBX; `shared` is the rest of
  // their options.
  void create(uint32_t count, VcpuMode mode, const Code& code,
              const VcpuThread::Options& shared = {}) {
    ASSERT_TRUE(write_payload_code(guest_.memory(), code));
    for (uint32_t index = 0; index < count; ++index) {
      VcpuThread::Options options = shared;
      options.index = index;
      options.apic_id = index;
      options.set_up = [this, count, mode, index](Vcpu& vcpu) -> loop::Result<void> {
        SKIFF_RETURN_IF_ERROR(guest_.set_cpuid(vcpu, count));
        VcpuBootState boot = payload_boot_state(mode);
        boot.rbx = index;
        return vcpu.start_at(boot);
      };
      auto vcpu = VcpuThread::create(surroundings(), std::move(options));
      ASSERT_TRUE(vcpu) << vcpu.error().message();
      vcpus_.push_back(*std::move(vcpu));
    }
    for (const auto& vcpu : vcpus_) {
      const auto ready = vcpu->wait_ready();
      ASSERT_TRUE(ready) << ready.error().message();
    }
  }
  void turn_until(const std::function<bool()>& condition) {
    while (!condition()) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  void pause(VcpuThread& vcpu) {
    bool paused = false;
    vcpu.pause([&] { paused = true; });
    EXPECT_FALSE(paused);
    turn_until([&] { return paused; });
  }
  loop::Result<void> call(VcpuThread& vcpu, std::function<loop::Result<void>(Vcpu&)> work) {
    std::optional<loop::Result<void>> result;
    vcpu.call(std::move(work), [&](loop::Result<void> got) { result = std::move(got); });
    turn_until([&] { return result.has_value(); });
    return *result;
  }

  PayloadTestGuest guest_;
  devices::PioBus pio_;
  devices::MmioBus mmio_;
  std::unique_ptr<loop::EventLoop> loop_;
  CountingPort port_;
  std::vector<VcpuFailure> failures_;
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;  // Gone before what it uses.
};

}  // namespace skiff::vmm
