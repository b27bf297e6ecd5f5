// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioConsole: consoles and named byte streams between guest and host (virtio 1.2, 5.3).
//
// With MULTIPORT the guest learns the ports over the control queues; a stream port appears as
// /dev/virtio-ports/NAME. Without it, port 0 is all there is. What is to be told to the guest is
// kept as a set per port, not as a queue of messages, so that a flood of requests stays bounded.
//
// Thread: as VirtioDevice; set_size() and everything of the backends on the home loop, which must
// go on turning until stop() called back. Ownership: the machine's; borrows loop, memory, backends.
//
//   auto console = VirtioConsole::create(loop, memory, {.ports = {
//       {.kind = ConsolePort::Kind::kConsole, .backend = &terminal},
//       {.kind = ConsolePort::Kind::kStream, .name = "org.skiff.stdin", .backend = &input}}});
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/console/console_control.h"
#include "devices/virtio/console/console_port.h"
#include "devices/virtio/queue_set.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"

namespace skiff::devices {

class VirtioConsole final : public VirtioDevice, private QueueOwner, private ConsolePort::Owner {
 public:
  static constexpr uint64_t kFeatureSize = 1 << 0;       // 5.3.3
  static constexpr uint64_t kFeatureMultiport = 1 << 1;  // 5.3.3
  static constexpr size_t kPortsMax = 31;
  static constexpr size_t kPortNameBytesMax = 64;

  // The order of the fields of a RESIZE message: the specification says columns first, but Linux
  // reads rows first up to 6.14, and which one a guest wants cannot be told from its features.
  enum class ResizeOrder : uint8_t { kColumnsFirst, kRowsFirst };

  struct PortOptions {
    ConsolePort::Kind kind = ConsolePort::Kind::kStream;
    std::string name;  // Letters, digits, '.', '-' and '_'; streams need one.
    ConsoleBackend* backend = nullptr;
  };
  struct Options {
    std::vector<PortOptions> ports;  // Port 0 is what a driver without MULTIPORT gets.
    ResizeOrder resize_order = ResizeOrder::kColumnsFirst;
  };

  // kInvalidArgument when there are no ports or too many, or a name is missing, taken or unfit.
  static loop::Result<std::unique_ptr<VirtioConsole>> create(loop::EventLoop& home,
                                                             const GuestMemory& memory,
                                                             const Options& options);

  // The host's terminal has this size now; 0 by 0, the initial state: not known. Concerns all
  // console ports.
  void set_size(uint16_t columns, uint16_t rows);

  VirtioId id() const override { return VirtioId::kConsole; }
  std::string_view name() const override { return "virtio-console"; }
  uint64_t features() const override { return kFeatureSize | kFeatureMultiport; }
  uint16_t queue_count() const override { return queues_->count(); }
  uint16_t queue_size_max(QueueIndex queue) const override {
    return queues_->runner(queue).size_max();
  }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return queues_->runner(queue).doorbell();
  }
  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override;
  void write_config(uint64_t, std::span<const uint8_t>) override {}  // No EMERG_WRITE: read-only.
  void attach(VirtioTransport& transport) override;
  void start(const VirtioStart& start) override { queues_->start(start); }
  void stop(std::function<void()> stopped) override { queues_->stop(std::move(stopped)); }

  // The queues of a port (5.3.2); the control queues stand behind port 0's.
  static constexpr QueueIndex receive_queue(size_t port) {
    return static_cast<QueueIndex>(port == 0 ? 0 : 2 + 2 * port);
  }
  static constexpr QueueIndex transmit_queue(size_t port) {
    return static_cast<QueueIndex>(receive_queue(port) + 1);
  }
  static constexpr QueueIndex kControlReceiveQueue = 2;
  static constexpr QueueIndex kControlTransmitQueue = 3;

 private:
  // What the guest is still to be told about a port, in the order of sending.
  enum Note : uint8_t {
    kNoteAdd = 1 << 0,
    kNoteConsole = 1 << 1,
    kNoteName = 1 << 2,
    kNoteSize = 1 << 3,
    kNoteHostClosed = 1 << 4,
    kNoteHostOpened = 1 << 5,
  };
  struct Port {
    std::unique_ptr<ConsolePort> port;
    uint8_t notes = 0;
    bool ready = false;  // The guest said PORT_READY.
  };

  VirtioConsole(loop::EventLoop& home, const Options& options);
  static loop::Result<void> check_ports(const std::vector<PortOptions>& ports);

  void queues_started(uint64_t features) override;
  void queues_stopping() override;
  QueueHandler::Served serve(QueueRunner& runner) override;
  void host_side_changed(ConsolePort& port) override;

  QueueHandler::Served serve_control_receive(QueueRunner& runner) SKIFF_REQUIRES(home_);
  QueueHandler::Served serve_control_transmit(QueueRunner& runner) SKIFF_REQUIRES(home_);
  void handle_control(const ConsoleControl& message) SKIFF_REQUIRES(home_);
  void port_is_ready(Port& port) SKIFF_REQUIRES(home_);
  void add_notes(Port& port, unsigned notes) SKIFF_REQUIRES(home_);
  // Writes the first note there is, and there is one; 0 when the buffers are too small for it.
  uint32_t write_next_note(std::span<const iovec> into) SKIFF_REQUIRES(home_);
  uint32_t write_note(const ConsolePort& port, Note note, std::span<const iovec> into)
      SKIFF_REQUIRES(home_);

  const loop::Home home_;
  const ResizeOrder resize_order_;
  std::unique_ptr<QueueSet> queues_;
  VirtioTransport* transport_ = nullptr;
  std::vector<Port> ports_ SKIFF_GUARDED_BY(home_);
  uint32_t port_count_ = 0;        // Of ports_, for vCPU threads.
  std::atomic<uint32_t> size_{0};  // Columns, and rows << 16.
  bool multiport_ SKIFF_GUARDED_BY(home_) = false;
  bool size_feature_ SKIFF_GUARDED_BY(home_) = false;
  bool started_ SKIFF_GUARDED_BY(home_) = false;
  bool device_ready_ SKIFF_GUARDED_BY(home_) = false;
  DescriptorChain control_chain_ SKIFF_GUARDED_BY(home_);
};

}  // namespace skiff::devices
