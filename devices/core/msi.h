// SPDX-License-Identifier: GPL-2.0-or-later
// MSI vectors: message-signalled interrupts of PCI devices.
//
// Thread: configure() from the vCPU thread that wrote the table (callers serialise); trigger() from
// any. Ownership: a device owns its vectors; the sink outlives them.
#pragma once

#include <cstdint>
#include <memory>

#include "loop/result.h"

namespace skiff::devices {

// As the guest wrote it into the MSI-X table (PCI 3.0, 6.8.2.6).
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

class MsiVector {
 public:
  virtual ~MsiVector() = default;
  // The message to send from now on. Masking is the caller's: it does not trigger a masked vector.
  virtual loop::Result<void> configure(const MsiMessage& message) = 0;
  // Sends the message. Nothing happens before the first configure().
  virtual void trigger() = 0;
  // An eventfd that triggers it when written to, for those who write through a ring; -1 if there is
  // none.
  virtual int trigger_fd() const = 0;
};

class MsiSink {
 public:
  virtual ~MsiSink() = default;
  // kExhausted when the interrupt controller has no route left.
  virtual loop::Result<std::unique_ptr<MsiVector>> create_vector() = 0;
};

}  // namespace skiff::devices
