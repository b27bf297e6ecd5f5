// SPDX-License-Identifier: GPL-2.0-or-later
// ConsoleBackend: the host's side of one console port.
//
// Nothing is buffered between guest and host: output that the host does not take stays in the
// guest's ring, and input is read from the host only when the guest gave a buffer for it. So
// neither side can make us lose bytes or grow.
// Thread: the console's home loop throughout.
// Ownership: the machine's; outlives the console it is attached to.
#pragma once

#include <cstddef>
#include <span>

namespace skiff::devices {

class ConsoleBackend {
 public:
  // The port. May be called from within write() and read(), but calls neither from within.
  class Listener {
   public:
    virtual void input_ready() = 0;   // After a read() that got nothing: try again.
    virtual void output_ready() = 0;  // After a write() that took less than it was given.
    virtual void host_changed() = 0;  // is_open() has a new value.

   protected:
    ~Listener() = default;
  };

  virtual ~ConsoleBackend() = default;

  // Null detaches.
  virtual void attach(Listener* listener) = 0;
  // Takes a part of the guest's bytes, or all, and returns how many. After less than all,
  // output_ready() follows. A closed host side takes and discards everything.
  virtual size_t write(std::span<const std::byte> bytes) = 0;
  // Bytes for the guest. After 0, input_ready() follows when there are some; after the end of the
  // input never.
  virtual size_t read(std::span<std::byte> into) = 0;
  // Is the host's side connected? The guest sees a change as a hang-up, or the end of its file.
  virtual bool is_open() const = 0;
  // The guest opened or closed the port. At a close everything it wrote before has been taken,
  // unless the guest reset the device or went away.
  virtual void guest_changed(bool open) = 0;
};

}  // namespace skiff::devices
