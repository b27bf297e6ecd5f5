// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/virtio_console.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/console/console_control.h"
#include "devices/virtio/console/console_port.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/queue_set.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"

namespace skiff::devices {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Served = QueueHandler::Served;

namespace {

constexpr uint16_t kDataQueueSize = 128;
constexpr uint16_t kControlQueueSize = 32;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '-' || c == '_';
}

}  // namespace

VirtioConsole::VirtioConsole(loop::EventLoop& home, const Options& options)
    : home_(home),
      resize_order_(options.resize_order),
      port_count_(static_cast<uint32_t>(options.ports.size())) {
  for (const PortOptions& port : options.ports)
    ports_.push_back({.port = std::make_unique<ConsolePort>(static_cast<uint32_t>(ports_.size()),
                                                            port.kind, port.name, *port.backend)});
}

Result<void> VirtioConsole::check_ports(const std::vector<PortOptions>& ports) {
  if (ports.empty() || ports.size() > kPortsMax)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("A console has 1 to {} ports, not {}", kPortsMax, ports.size()));
  std::set<std::string_view> names;
  for (const PortOptions& port : ports) {
    SKIFF_CHECK(port.backend != nullptr);
    if (port.name.empty() && port.kind == ConsolePort::Kind::kConsole) continue;
    // The guest makes a device node of it.
    if (port.name.empty() || port.name.size() > kPortNameBytesMax ||
        !std::ranges::all_of(port.name, is_name_character) || port.name.front() == '.')
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("Console port name \"{}\" is not 1 to {} letters, digits, '.', '-' "
                               "or '_', or begins with '.'",
                               port.name, kPortNameBytesMax));
    if (!names.insert(port.name).second)
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("Two console ports are named \"{}\"", port.name));
  }
  return {};
}

Result<std::unique_ptr<VirtioConsole>> VirtioConsole::create(loop::EventLoop& home,
                                                             const GuestMemory& memory,
                                                             const Options& options) {
  SKIFF_RETURN_IF_ERROR(check_ports(options.ports));
  std::unique_ptr<VirtioConsole> console(new VirtioConsole(home, options));
  std::vector<uint16_t> sizes(transmit_queue(options.ports.size() - 1) + 1u, kDataQueueSize);
  // With a single port the control queues are the last ones.
  sizes.resize(std::max<size_t>(sizes.size(), kControlTransmitQueue + 1u));
  sizes[kControlReceiveQueue] = sizes[kControlTransmitQueue] = kControlQueueSize;
  auto queues = QueueSet::create({.home = &home,
                                  .memory = &memory,
                                  .name = std::string(console->name()),
                                  .queue_sizes = sizes});
  if (!queues) return queues.error();
  console->queues_ = *std::move(queues);
  return console;
}

void VirtioConsole::attach(VirtioTransport& transport) {
  transport_ = &transport;
  queues_->attach(transport, *this);
}

// 5.3.4: le16 cols, le16 rows, le32 max_nr_ports, le32 emerg_wr.
void VirtioConsole::read_config(uint64_t offset_bytes, std::span<uint8_t> data) const {
  const std::array<uint32_t, 3> words{size_.load(std::memory_order_relaxed), port_count_, 0};
  const auto bytes = std::as_bytes(std::span(words));
  for (uint8_t& byte : data) {
    byte = offset_bytes < bytes.size() ? std::to_integer<uint8_t>(bytes[offset_bytes]) : uint8_t{0};
    ++offset_bytes;
  }
}

void VirtioConsole::set_size(uint16_t columns, uint16_t rows) {
  home_.assert_here();
  const uint32_t size = columns | uint32_t{rows} << 16;
  if (size_.exchange(size, std::memory_order_relaxed) == size || !started_) return;
  if (!multiport_) {
    if (size_feature_) transport_->interrupt_config();
    return;
  }
  for (Port& port : ports_) {
    if (port.ready && port.port->kind() == ConsolePort::Kind::kConsole) add_notes(port, kNoteSize);
  }
}

void VirtioConsole::queues_started(uint64_t features) {
  home_.assert_here();
  multiport_ = (features & kFeatureMultiport) != 0;
  size_feature_ = (features & kFeatureSize) != 0;
  started_ = true;
  device_ready_ = false;
  for (size_t i = 0; i < ports_.size(); ++i) {
    ports_[i].notes = 0;
    ports_[i].ready = false;
    ports_[i].port->start(queues_->runner(receive_queue(i)), queues_->runner(transmit_queue(i)),
                          *this);
  }
  // Without control messages nobody says so (5.3.5): port 0 is in use from the start.
  if (!multiport_) ports_[0].port->set_guest_open(true);
}

void VirtioConsole::queues_stopping() {
  home_.assert_here();
  started_ = false;
  for (Port& port : ports_) port.port->stop();
}

Served VirtioConsole::serve(QueueRunner& runner) {
  home_.assert_here();
  const QueueIndex queue = runner.index();
  if (queue == kControlReceiveQueue) return serve_control_receive(runner);
  if (queue == kControlTransmitQueue) return serve_control_transmit(runner);
  const size_t port = queue < kControlReceiveQueue ? 0 : queue / 2u - 1;
  if (port != 0 && !multiport_) return Served::kBlocked;
  return queue % 2 == 0 ? ports_[port].port->serve_receive() : ports_[port].port->serve_transmit();
}

Served VirtioConsole::serve_control_receive(QueueRunner& runner) {
  for (uint16_t budget = runner.queue().size(); budget > 0; --budget) {
    const bool any = std::ranges::any_of(ports_, [](const Port& port) { return port.notes != 0; });
    if (!any) return Served::kBlocked;
    if (runner.queue().pop(control_chain_) != VirtQueue::Pop::kChain) return Served::kAll;
    const uint32_t written = write_next_note(control_chain_.writable());
    if (written == 0)
      SKIFF_LOG_LIMITED(kWarn, "{}: a control buffer of {} bytes is too small for its message",
                        name(), control_chain_.writable_bytes());
    runner.complete(control_chain_.head(), written);
  }
  return Served::kMore;
}

uint32_t VirtioConsole::write_next_note(std::span<const iovec> into) {
  const auto port = std::ranges::find_if(ports_, [](const Port& p) { return p.notes != 0; });
  const auto note = static_cast<Note>(1u << std::countr_zero(port->notes));
  const uint32_t written = write_note(*port->port, note, into);
  if (written != 0) port->notes = static_cast<uint8_t>(port->notes & ~unsigned{note});
  return written;
}

uint32_t VirtioConsole::write_note(const ConsolePort& port, Note note,
                                   std::span<const iovec> into) {
  const uint32_t id = port.id();
  switch (note) {
    case kNoteAdd:
      return write_control({id, ConsoleEvent::kDeviceAdd, 1}, {}, into);
    case kNoteConsole:
      return write_control({id, ConsoleEvent::kConsolePort, 1}, {}, into);
    case kNoteName:  // Not terminated: the length of the message is that of the name.
      return write_control({id, ConsoleEvent::kPortName, 1}, std::as_bytes(std::span(port.name())),
                           into);
    case kNoteSize: {
      const uint32_t size = size_.load(std::memory_order_relaxed);
      std::array<uint16_t, 2> fields{static_cast<uint16_t>(size),
                                     static_cast<uint16_t>(size >> 16)};
      if (resize_order_ == ResizeOrder::kRowsFirst) std::swap(fields[0], fields[1]);
      return write_control({id, ConsoleEvent::kResize, 0}, std::as_bytes(std::span(fields)), into);
    }
    case kNoteHostClosed:
      return write_control({id, ConsoleEvent::kPortOpen, 0}, {}, into);
    case kNoteHostOpened:
      return write_control({id, ConsoleEvent::kPortOpen, 1}, {}, into);
  }
  return 0;
}

Served VirtioConsole::serve_control_transmit(QueueRunner& runner) {
  for (uint16_t budget = runner.queue().size(); budget > 0; --budget) {
    if (runner.queue().pop(control_chain_) != VirtQueue::Pop::kChain) return Served::kAll;
    const auto message = read_control(control_chain_.readable());
    runner.complete(control_chain_.head(), 0);
    if (message)
      handle_control(*message);
    else
      SKIFF_LOG_LIMITED(kWarn, "{}: a control message of less than {} bytes is ignored", name(),
                        kConsoleControlBytes);
  }
  return Served::kMore;
}

void VirtioConsole::handle_control(const ConsoleControl& message) {
  if (message.event == ConsoleEvent::kDeviceReady) {
    // Said once; ports that were added already would only annoy the guest.
    if (message.value == 1 && !std::exchange(device_ready_, true)) {
      for (Port& port : ports_) add_notes(port, kNoteAdd);
    }
    return;
  }
  if (!device_ready_ || message.port >= ports_.size()) {
    SKIFF_LOG_LIMITED(kWarn, "{}: control message {} for port {} is ignored", name(),
                      static_cast<unsigned>(message.event), message.port);
    return;
  }
  Port& port = ports_[message.port];
  switch (message.event) {
    case ConsoleEvent::kPortReady:
      if (message.value == 1) port_is_ready(port);
      return;
    case ConsoleEvent::kPortOpen:
      return port.port->set_guest_open(message.value != 0);
    default:  // The others go from the device to the driver.
      SKIFF_LOG_LIMITED(kWarn, "{}: unknown control message {} is ignored", name(),
                        static_cast<unsigned>(message.event));
  }
}

void VirtioConsole::port_is_ready(Port& port) {
  port.ready = true;
  unsigned notes = 0;
  if (port.port->kind() == ConsolePort::Kind::kConsole) {
    notes |= kNoteConsole;
    if (size_.load(std::memory_order_relaxed) != 0) notes |= kNoteSize;
  }
  if (!port.port->name().empty()) notes |= kNoteName;
  if (port.port->is_host_open()) notes |= kNoteHostOpened;
  add_notes(port, notes);
}

void VirtioConsole::host_side_changed(ConsolePort& changed) {
  home_.assert_here();
  Port& port = ports_[changed.id()];
  if (!port.ready) return;  // It learns the state when it is.
  // Of a close and an open the guest gets both, in this order; of an open and a close the close.
  if (changed.is_host_open()) return add_notes(port, kNoteHostOpened);
  port.notes = static_cast<uint8_t>(port.notes & ~unsigned{kNoteHostOpened});
  add_notes(port, kNoteHostClosed);
}

void VirtioConsole::add_notes(Port& port, unsigned notes) {
  port.notes = static_cast<uint8_t>(port.notes | notes);
  queues_->runner(kControlReceiveQueue).schedule();
}

}  // namespace skiff::devices
