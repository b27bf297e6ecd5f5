// SPDX-License-Identifier: GPL-2.0-or-later
// IrqLine: a wire to the interrupt controller.
//
// Thread: any. Ownership: the machine's; devices borrow it.
#pragma once

namespace skiff::devices {

class IrqLine {
 public:
  virtual ~IrqLine() = default;
  // Level of an ISA or INTx line; setting the level it has is cheap and harmless.
  virtual void set_level(bool high) = 0;
};

}  // namespace skiff::devices
