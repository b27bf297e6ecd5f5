// SPDX-License-Identifier: GPL-2.0-or-later
// FdConsoleBackend: a console port on descriptors: the process's stdin and stdout, a pipe, a
// socket, a terminal, a file. It never blocks the loop (HostFd says how) and holds no bytes.
//
// Regular files are read and written in place and may wait for the disk.
// Thread: create() anywhere before the loop runs, the rest on the home loop, also the destructor.
// Ownership: owns its descriptors; give it duplicates of 0 and 1, and two different numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "devices/chardev/host_fd.h"
#include "devices/virtio/console/console_backend.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class FdConsoleBackend final : public ConsoleBackend {
 public:
  struct Options {
    loop::EventLoop* home = nullptr;
    loop::UniqueFd input;   // Read for the guest. None: a port that has no input,
    loop::UniqueFd output;  // and none here: one whose output is discarded.
    std::string name;       // For messages.
    // The guest opened the port, or closed it and everything it wrote is written.
    std::function<void(bool open)> on_guest_changed;
  };

  // kInvalidArgument when a descriptor is not open for its direction.
  static loop::Result<std::unique_ptr<FdConsoleBackend>> create(Options options);

  void attach(Listener* listener) override { listener_ = listener; }
  size_t write(std::span<const std::byte> bytes) override;
  size_t read(std::span<std::byte> into) override;
  // Open while either direction is: the input until its end, the output until nobody reads it.
  bool is_open() const override { return input_.open || output_.open; }
  void guest_changed(bool open) override;

 private:
  struct End {
    loop::UniqueFd lent;       // What we were given,
    std::optional<HostFd> fd;  // and how it is used.
    bool open = false;
    std::unique_ptr<loop::FdWatcher> watcher;
  };

  explicit FdConsoleBackend(Options options);
  static loop::Result<End> prepare(loop::UniqueFd fd, int access, const std::string& name);
  void arm(End& end, uint32_t events);
  void close_end(End& end, int os_error);

  const loop::Home home_;
  const std::string name_;
  const std::function<void(bool)> on_guest_changed_;
  Listener* listener_ = nullptr;
  End input_;
  End output_;
};

}  // namespace skiff::devices
