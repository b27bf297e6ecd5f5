// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/msi_router.h"

#include <linux/kvm.h>
#include <spdlog/fmt/fmt.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "devices/core/msi.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Thread: as MsiVector says. The irqfd exists from the first configure() on.
class MsiRouter::Vector final : public devices::MsiVector {
 public:
  Vector(MsiRouter& router, uint32_t gsi, loop::UniqueFd event)
      : router_(router), gsi_(gsi), event_(std::move(event)) {}

  ~Vector() override {
    if (message_) bind(KVM_IRQFD_FLAG_DEASSIGN);
    router_.release(gsi_);
  }

  Result<void> configure(const devices::MsiMessage& message) override {
    // Guests mask and unmask a vector without changing it, and replacing the table is slow.
    if (message_ == message) return {};
    SKIFF_RETURN_IF_ERROR(router_.route(gsi_, message));
    if (!message_ && bind(0) < 0) return Error::from_errno(errno, "Binding an MSI vector");
    message_ = message;
    return {};
  }

  void trigger() override {
    if (!message_) return;
    const uint64_t one = 1;
    // A full counter means that the interrupt is on its way already.
    [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof(one));
  }

  int trigger_fd() const override { return event_.get(); }

 private:
  int bind(uint32_t flags) {
    kvm_irqfd request{.fd = static_cast<uint32_t>(event_.get()), .gsi = gsi_, .flags = flags};
    return kvm_ioctl(router_.vm_fd_, KVM_IRQFD, &request);
  }

  MsiRouter& router_;
  const uint32_t gsi_;
  loop::UniqueFd event_;
  std::optional<devices::MsiMessage> message_;
};

Result<std::unique_ptr<devices::MsiVector>> MsiRouter::create_vector() {
  // Never blocking: a ring's write must not wait either.
  loop::UniqueFd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event)
    return Error(ErrorKind::kExhausted, "Making an MSI vector: no file descriptor left", errno);
  uint32_t slot = 0;
  {
    const loop::MutexLock lock(mutex_);
    const auto free = std::ranges::find(used_gsis_, false);
    slot = static_cast<uint32_t>(free - used_gsis_.begin());
    if (slot >= max_vectors_)
      return Error(ErrorKind::kExhausted,
                   fmt::format("All {} MSI vectors are in use", max_vectors_));
    if (free == used_gsis_.end())
      used_gsis_.push_back(true);
    else
      *free = true;
  }
  return std::unique_ptr<devices::MsiVector>(
      std::make_unique<Vector>(*this, kFirstMsiGsi + slot, std::move(event)));
}

Result<void> MsiRouter::route(uint32_t gsi, const devices::MsiMessage& message) {
  // With 32-bit APIC IDs bits 39:32 are reserved, and KVM would refuse the table of everybody.
  if ((message.address >> 32 & 0xff) != 0)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("MSI address {:#x} has reserved bits set", message.address));
  {
    const loop::MutexLock lock(mutex_);
    routes_[gsi] = message;
  }
  Result<void> committed = commit_change();
  if (!committed) {
    const loop::MutexLock lock(mutex_);
    routes_.erase(gsi);  // What nobody got must not spoil the next table.
  }
  return committed;
}

void MsiRouter::release(uint32_t gsi) {
  // The route itself goes with the next replacement: nothing triggers it any more.
  const loop::MutexLock lock(mutex_);
  routes_.erase(gsi);
  used_gsis_[gsi - kFirstMsiGsi] = false;
}

Result<void> MsiRouter::commit_change() {
  mutex_.lock();
  const uint64_t mine = ++wanted_version_;
  while (committing_ && installed_version_ < mine) committed_.wait(mutex_);
  if (installed_version_ >= mine) {
    mutex_.unlock();
    return {};
  }
  committing_ = true;
  const uint64_t version = wanted_version_;
  const std::map<uint32_t, devices::MsiMessage> routes = routes_;
  mutex_.unlock();

  Result<void> result = replace_table(routes);

  mutex_.lock();
  committing_ = false;
  // After a failure every waiter tries for itself and gets its own error.
  if (result) installed_version_ = version;
  mutex_.unlock();
  committed_.notify_all();
  return result;
}

Result<void> MsiRouter::replace_table(const std::map<uint32_t, devices::MsiMessage>& routes) const {
  constexpr uint32_t kPicPins = 8;
  KvmArray<kvm_irq_routing_entry> table(2 * kPicPins + kIoApicPins + routes.size());
  uint32_t count = 0;
  auto add_pin = [&](uint32_t gsi, uint32_t chip, uint32_t pin) {
    kvm_irq_routing_entry& entry = table.entries()[count++];
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
  };
  for (uint32_t pin = 0; pin < kPicPins; ++pin) {
    add_pin(pin, KVM_IRQCHIP_PIC_MASTER, pin);
    add_pin(kPicPins + pin, KVM_IRQCHIP_PIC_SLAVE, pin);
  }
  // The timer's IRQ 0 arrives at pin 2, where nothing else can: IRQ 2 is the PIC's cascade.
  add_pin(0, KVM_IRQCHIP_IOAPIC, kTimerIoApicPin);
  for (uint32_t pin = 1; pin < kIoApicPins; ++pin)
    if (pin != kTimerIoApicPin) add_pin(pin, KVM_IRQCHIP_IOAPIC, pin);
  for (const auto& [gsi, message] : routes) {
    kvm_irq_routing_entry& entry = table.entries()[count++];
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
  }
  table.header()->count = count;
  if (kvm_ioctl(vm_fd_, kSetGsiRouting, table.header()) < 0)
    return Error::from_errno(errno, "Setting the interrupt routes");
  return {};
}

}  // namespace skiff::vmm
