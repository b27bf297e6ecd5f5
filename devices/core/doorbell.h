// SPDX-License-Identifier: GPL-2.0-or-later
// DoorbellHub: makes a guest's register write signal an eventfd without an exit to userspace (KVM's
// ioeventfd).
//
// Thread: any; calls may block shortly in the kernel. Ownership: the machine's; devices borrow it
// and detach what they attached before the notifier goes.
#pragma once

#include <cstdint>
#include <optional>

#include "loop/event_notifier.h"
#include "loop/result.h"

namespace skiff::devices {

struct DoorbellAddress {
  enum class Space : uint8_t { kMmio, kPio };
  Space space = Space::kMmio;
  uint64_t address = 0;
  uint32_t size_bytes = 0;        // 0: an access of any size.
  std::optional<uint64_t> value;  // Only when this is written; nothing: any value.
};

class DoorbellHub {
 public:
  virtual ~DoorbellHub() = default;
  virtual loop::Result<void> attach(const DoorbellAddress& where,
                                    const loop::EventNotifier& notifier) = 0;
  virtual void detach(const DoorbellAddress& where, const loop::EventNotifier& notifier) = 0;
};

}  // namespace skiff::devices
