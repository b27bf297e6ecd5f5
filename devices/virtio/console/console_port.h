// SPDX-License-Identifier: GPL-2.0-or-later
// ConsolePort: one port of a VirtioConsole, its two queues and its backend (virtio 1.2, 5.3.6).
//
// Thread: the console's home loop, except for the constant facts. Ownership: the console's; borrows
// the backend, and the runners between start() and stop().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "devices/virtio/console/console_backend.h"
#include "devices/virtio/queue_runner.h"

namespace skiff::devices {

class ConsolePort final : private ConsoleBackend::Listener {
 public:
  enum class Kind : uint8_t {
    kConsole,  // /dev/hvcN
    kStream,   // /dev/virtio-ports/NAME
  };
  class Owner {
   public:
    virtual void host_side_changed(ConsolePort& port) = 0;

   protected:
    ~Owner() = default;
  };

  // What one direction moves at most in a turn of the loop.
  static constexpr uint64_t kBytesPerTurn = 64 * 1024;

  ConsolePort(uint32_t id, Kind kind, std::string name, ConsoleBackend& backend)
      : id_(id), kind_(kind), name_(std::move(name)), backend_(backend) {}
  ~ConsolePort() { backend_.attach(nullptr); }
  ConsolePort(const ConsolePort&) = delete;
  ConsolePort& operator=(const ConsolePort&) = delete;

  uint32_t id() const { return id_; }
  Kind kind() const { return kind_; }
  const std::string& name() const { return name_; }

  void start(QueueRunner& receive, QueueRunner& transmit, Owner& owner);
  // Hands over what the host takes at once of the output that is left, and lets go of the rest.
  void stop();

  QueueHandler::Served serve_receive();   // Host to guest.
  QueueHandler::Served serve_transmit();  // Guest to host.

  // The guest opened or closed its side. It gets no input while it is closed: Linux would drop it.
  void set_guest_open(bool open);
  bool is_host_open() const { return backend_.is_open(); }

 private:
  void input_ready() override;
  void output_ready() override;
  void host_changed() override;

  // False when the backend did not take all; transmit_* remember the place.
  bool write_some(uint64_t& bytes_left);
  uint32_t read_some(uint64_t& bytes_left);
  void deliver_guest_close();

  const uint32_t id_;
  const Kind kind_;
  const std::string name_;
  ConsoleBackend& backend_;
  Owner* owner_ = nullptr;  // Null: stopped.
  QueueRunner* receive_ = nullptr;
  QueueRunner* transmit_ = nullptr;
  bool guest_open_ = false;
  bool guest_close_pending_ = false;  // The backend hears of it when the output is through.
  DescriptorChain receive_chain_;
  bool receive_chain_waits_ = false;  // In flight: there was no input.
  DescriptorChain transmit_chain_;
  bool transmit_chain_waits_ = false;  // In flight: not all of it is written.
  size_t transmit_part_ = 0;           // Which buffer of the chain comes next,
  size_t transmit_offset_ = 0;         // and from which byte on.
};

}  // namespace skiff::devices
