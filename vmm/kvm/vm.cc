// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/vm.h"

#include <linux/kvm.h>
#include <spdlog/fmt/fmt.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "devices/core/doorbell.h"
#include "devices/core/irq_line.h"
#include "devices/core/msi.h"
#include "loop/check.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/kvm_system.h"
#include "vmm/kvm/late_release.h"
#include "vmm/kvm/msi_router.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr std::array<uint32_t, 3> kChips = {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
                                            KVM_IRQCHIP_IOAPIC};

// KVM_IRQ_LINE on one GSI.
class KvmIrqLine final : public devices::IrqLine {
 public:
  KvmIrqLine(int vm_fd, uint32_t gsi) : vm_fd_(vm_fd), gsi_(gsi) {}

  void set_level(bool high) override {
    if (high_.exchange(high, std::memory_order_relaxed) == high) return;
    kvm_irq_level level{.irq = gsi_, .level = high ? 1U : 0U};
    if (kvm_ioctl(vm_fd_, KVM_IRQ_LINE, &level) < 0)
      SKIFF_LOG_LIMITED(kError, "Setting interrupt line {}: {}", gsi_,
                        std::generic_category().message(errno));
  }

 private:
  const int vm_fd_;
  const uint32_t gsi_;
  std::atomic<bool> high_{false};
};

kvm_ioeventfd doorbell_request(const devices::DoorbellAddress& where, int fd) {
  kvm_ioeventfd request{};
  request.addr = where.address;
  request.len = where.size_bytes;
  request.fd = fd;
  if (where.space == devices::DoorbellAddress::Space::kPio) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (where.value) {
    request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    request.datamatch = *where.value;
  }
  return request;
}

Error create_vm_error(int os_error) {
  if (os_error == EBUSY)
    return {ErrorKind::kBusy,
            "Creating a virtual machine: another hypervisor holds the processor, stop it first",
            os_error};
  return Error::from_errno(os_error, "Creating a virtual machine");
}

}  // namespace

struct Vm::PowerOnState {
  std::array<kvm_irqchip, kChips.size()> chips{};
  kvm_pit_state2 pit{};
};

Vm::Vm(const KvmSystem& system, loop::UniqueFd fd) : system_(system), fd_(std::move(fd)) {}

Vm::~Vm() = default;

Result<std::unique_ptr<Vm>> Vm::create(const KvmSystem& system) {
  int fd;
  do fd = ::ioctl(system.fd(), KVM_CREATE_VM, 0UL);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return create_vm_error(errno);
  std::unique_ptr<Vm> vm(new Vm(system, loop::UniqueFd(fd)));
  vm->keeper_ = release_late(fd);
  uint64_t identity_map = kKvmIdentityMapBase;
  if (kvm_ioctl(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
    return Error::from_errno(errno, "Placing KVM's identity map");
  if (::ioctl(fd, KVM_SET_TSS_ADDR, static_cast<unsigned long>(kKvmTssBase)) < 0)
    return Error::from_errno(errno, "Placing KVM's task state");
  return vm;
}

Result<void> Vm::add_interrupt_controllers(uint32_t max_msi_vectors) {
  if (::ioctl(fd(), KVM_CREATE_IRQCHIP, 0UL) < 0)
    return Error::from_errno(errno, "Creating the interrupt controllers");
  kvm_pit_config pit{.flags = KVM_PIT_SPEAKER_DUMMY};
  if (kvm_ioctl(fd(), KVM_CREATE_PIT2, &pit) < 0)
    return Error::from_errno(errno, "Creating the interval timer");
  kvm_enable_cap x2apic{};
  x2apic.cap = KVM_CAP_X2APIC_API;
  x2apic.args[0] = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
  if (kvm_ioctl(fd(), KVM_ENABLE_CAP, &x2apic) < 0)
    return Error::from_errno(errno, "Switching 32-bit APIC IDs on");

  const int64_t routes = system_.check_extension(KVM_CAP_IRQ_ROUTING);
  const int64_t room = std::max<int64_t>(routes - 2 * int64_t{kIoApicPins}, 0);
  router_ = std::make_unique<MsiRouter>(
      fd(), static_cast<uint32_t>(std::min<int64_t>(room, max_msi_vectors)));
  SKIFF_RETURN_IF_ERROR(router_->install_pins());
  return remember_power_on_state();
}

Result<void> Vm::remember_power_on_state() {
  power_on_ = std::make_unique<PowerOnState>();
  for (size_t i = 0; i < kChips.size(); ++i) {
    power_on_->chips[i].chip_id = kChips[i];
    if (kvm_ioctl(fd(), KVM_GET_IRQCHIP, &power_on_->chips[i]) < 0)
      return Error::from_errno(errno, "Reading an interrupt controller");
  }
  if (kvm_ioctl(fd(), KVM_GET_PIT2, &power_on_->pit) < 0)
    return Error::from_errno(errno, "Reading the interval timer");
  return {};
}

Result<void> Vm::reset_interrupt_controllers() {
  for (kvm_irqchip chip : power_on_->chips)
    if (kvm_ioctl(fd(), KVM_SET_IRQCHIP, &chip) < 0)
      return Error::from_errno(errno, "Resetting an interrupt controller");
  kvm_pit_state2 pit = power_on_->pit;
  if (kvm_ioctl(fd(), KVM_SET_PIT2, &pit) < 0)
    return Error::from_errno(errno, "Resetting the interval timer");
  return {};
}

Result<void> Vm::set_memory_slot(const MemorySlot& slot) {
  kvm_userspace_memory_region region{};
  region.slot = slot.id;
  region.flags = slot.readonly ? KVM_MEM_READONLY : 0;
  region.guest_phys_addr = slot.guest_base;
  region.memory_size = slot.size_bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(slot.host);
  if (kvm_ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &region) < 0)
    return Error::from_errno(errno, fmt::format("Placing {} bytes of guest memory at {:#x}",
                                                slot.size_bytes, slot.guest_base));
  std::erase_if(slots_, [&slot](const MemorySlot& other) { return other.id == slot.id; });
  if (slot.size_bytes > 0) slots_.push_back(slot);
  return {};
}

bool Vm::read_memory(uint64_t guest_address, std::span<std::byte> into) const {
  for (const MemorySlot& slot : slots_) {
    if (guest_address < slot.guest_base) continue;
    const uint64_t offset = guest_address - slot.guest_base;
    if (offset >= slot.size_bytes || into.size() > slot.size_bytes - offset) continue;
    std::memcpy(into.data(), static_cast<const std::byte*>(slot.host) + offset, into.size());
    return true;
  }
  return false;
}

Result<std::unique_ptr<devices::IrqLine>> Vm::create_irq_line(uint32_t gsi) {
  if (gsi >= kIoApicPins)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("There is no interrupt line {}, only 0 to {}", gsi, kIoApicPins - 1));
  return std::unique_ptr<devices::IrqLine>(std::make_unique<KvmIrqLine>(fd(), gsi));
}

Result<void> Vm::attach(const devices::DoorbellAddress& where,
                        const loop::EventNotifier& notifier) {
  kvm_ioeventfd request = doorbell_request(where, notifier.fd());
  if (kvm_ioctl(fd(), KVM_IOEVENTFD, &request) < 0)
    return Error::from_errno(errno, fmt::format("Attaching a doorbell at {:#x}", where.address));
  return {};
}

void Vm::detach(const devices::DoorbellAddress& where, const loop::EventNotifier& notifier) {
  kvm_ioeventfd request = doorbell_request(where, notifier.fd());
  request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
  if (kvm_ioctl(fd(), KVM_IOEVENTFD, &request) < 0)
    SKIFF_LOG_LIMITED(kWarn, "Detaching the doorbell at {:#x}: {}", where.address,
                      std::generic_category().message(errno));
}

Result<std::unique_ptr<devices::MsiVector>> Vm::create_vector() {
  SKIFF_CHECK(router_ != nullptr);
  return router_->create_vector();
}

Result<void> Vm::signal_msi(const devices::MsiMessage& message) {
  kvm_msi request{};
  request.address_lo = static_cast<uint32_t>(message.address);
  request.address_hi = static_cast<uint32_t>(message.address >> 32);
  request.data = message.data;
  if (kvm_ioctl(fd(), KVM_SIGNAL_MSI, &request) < 0)
    return Error::from_errno(errno, "Sending a message-signalled interrupt");
  return {};
}

}  // namespace skiff::vmm
