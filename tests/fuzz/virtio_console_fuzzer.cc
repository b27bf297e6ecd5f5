// SPDX-License-Identifier: GPL-2.0-or-later
// A VirtioConsole whose guest offers arbitrary control messages and buffers and whose host opens,
// closes, types and stalls in between. What must hold: no crash, no hang, and every stop ends.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_console_backend.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/console/console_port.h"
#include "devices/virtio/console/virtio_console.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr uint16_t kQueueSize = 8;
constexpr uint64_t kArenaBytes = 0x4000;
constexpr uint64_t kQueues = 6;
constexpr uint64_t kScratch = kQueues * kArenaBytes;  // Buffers lie here, all on top of each other.
constexpr uint64_t kScratchBytes = 0x4000;

class ConsoleUnderTest {
 public:
  explicit ConsoleUnderTest(FuzzedDataProvider& data) : data_(data) {
    auto console = VirtioConsole::create(
        loop_, memory_,
        {.ports = {{.kind = ConsolePort::Kind::kConsole, .backend = &backends_[0]},
                   {.kind = ConsolePort::Kind::kStream, .name = "s", .backend = &backends_[1]}}});
    SKIFF_CHECK(console);
    console_ = *std::move(console);
    console_->attach(transport_);
  }

  void run() {
    start();
    for (int steps = 0; steps < 300 && data_.remaining_bytes() > 0; ++steps) step();
    stop();
  }

 private:
  void start() {
    VirtioStart start{.features = data_.ConsumeIntegral<uint64_t>(), .queues = {}};
    drivers_.clear();
    for (uint64_t q = 0; q < kQueues; ++q) {
      drivers_.push_back(
          std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = kQueueSize,
                                                                      .features = start.features,
                                                                      .indirect_entries = 4,
                                                                      .base = {q * kArenaBytes},
                                                                      .arena_bytes = kArenaBytes}));
      start.queues.push_back(drivers_.back()->layout());
    }
    if (data_.ConsumeProbability<float>() < 0.1f)
      start.queues[data_.ConsumeIntegralInRange<size_t>(0, kQueues - 1)] = QueueLayout{};
    console_->start(start);
  }

  void stop() {
    bool stopped = false;
    console_->stop([&stopped] { stopped = true; });
    loop_.run_until_idle();
    SKIFF_CHECK(stopped);
  }

  void step() {
    switch (data_.ConsumeIntegralInRange<int>(0, 10)) {
      case 0:
      case 1:
        return send_control();
      case 2:
      case 3:
        return offer_chain();
      case 4:
        driver().collect_all();
        return;
      case 5:
        backend().set_room(data_.ConsumeBool() ? FakeConsoleBackend::kUnlimited
                                               : data_.ConsumeIntegral<uint8_t>());
        return;
      case 6:
        backend().give_input(data_.ConsumeRandomLengthString(64));
        return;
      case 7:
        backend().set_open(data_.ConsumeBool());
        return;
      case 8:
        console_->set_size(data_.ConsumeIntegral<uint16_t>(), data_.ConsumeIntegral<uint16_t>());
        return;
      case 9:
        loop_.run_until_idle();
        return;
      default:
        return break_rules();
    }
  }

  void break_rules() {
    switch (data_.ConsumeIntegralInRange<int>(0, 3)) {
      case 0:
        return driver().offer_head(data_.ConsumeIntegral<uint16_t>());
      case 1:
        return driver().write_descriptor(data_.ConsumeIntegralInRange<uint16_t>(0, kQueueSize - 1),
                                         {.address = data_.ConsumeIntegral<uint64_t>(),
                                          .length_bytes = data_.ConsumeIntegral<uint32_t>(),
                                          .flags = data_.ConsumeIntegral<uint8_t>(),
                                          .next = data_.ConsumeIntegral<uint8_t>()});
      case 2:
        return driver().set_available_index(data_.ConsumeIntegral<uint16_t>());
      default:
        stop();
        return start();
    }
  }

  QueueIndex pick_queue() { return data_.ConsumeIntegralInRange<QueueIndex>(0, kQueues - 1); }
  GuestDriver& driver() { return *drivers_[pick_queue()]; }
  FakeConsoleBackend& backend() { return backends_[data_.ConsumeBool() ? 1 : 0]; }

  void send_control() {
    const auto event = data_.ConsumeBool() ? data_.ConsumeIntegral<uint16_t>()
                                           : data_.PickValueInArray<uint16_t>({0, 3, 6});
    const GuestAddress at{kScratch};
    memory_.memory().store(at, data_.ConsumeBool() ? data_.ConsumeIntegral<uint32_t>()
                                                   : uint32_t{data_.ConsumeBool()});
    memory_.memory().store(at + 4, event);
    memory_.memory().store(at + 6, static_cast<uint16_t>(data_.ConsumeIntegral<uint8_t>() % 3));
    const std::vector<DriverBuffer> chain{
        DriverBuffer::readable(at, data_.ConsumeBool() ? 8 : data_.ConsumeIntegral<uint8_t>())};
    drivers_[VirtioConsole::kControlTransmitQueue]->add(chain);
    drivers_[VirtioConsole::kControlTransmitQueue]->publish();
    kick(VirtioConsole::kControlTransmitQueue);
  }

  void offer_chain() {
    const QueueIndex queue = pick_queue();
    std::vector<DriverBuffer> chain;
    const int parts = data_.ConsumeIntegralInRange<int>(1, 4);
    for (int i = 0; i < parts; ++i) {
      const GuestAddress at{kScratch + data_.ConsumeIntegral<uint8_t>()};
      chain.push_back({at, data_.ConsumeIntegral<uint8_t>(), data_.ConsumeBool()});
    }
    drivers_[queue]->add(chain, data_.ConsumeBool() ? GuestDriver::Placement::kIndirect
                                                    : GuestDriver::Placement::kDirect);
    drivers_[queue]->publish();
    kick(queue);
  }

  void kick(QueueIndex queue) {
    console_->doorbell(queue).notify();
    if (data_.ConsumeBool()) loop_.run_until_idle();
  }

  FuzzedDataProvider& data_;
  FakeGuestMemory memory_{kScratch + kScratchBytes};
  loop::ManualLoop loop_;
  FakeTransport transport_;
  FakeConsoleBackend backends_[2];
  std::unique_ptr<VirtioConsole> console_;
  std::vector<std::unique_ptr<GuestDriver>> drivers_;
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  skiff::loop::set_log_level(skiff::loop::LogLevel::kOff);
  FuzzedDataProvider data(bytes, size);
  skiff::devices::ConsoleUnderTest(data).run();
  return 0;
}
