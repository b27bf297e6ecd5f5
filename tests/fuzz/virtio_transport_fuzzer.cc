// SPDX-License-Identifier: GPL-2.0-or-later
// A guest gone mad over PCI configuration space, two virtio-pci devices and a virtio-mmio one:
// register accesses of any place, size and value, with devices that interrupt, break and stop late.
// Besides the sanitizers, FakeVirtioDevice checks that starts and stops alternate, FakeDoorbellHub
// that what is detached was attached, and the end of each run that a reset leaves nothing behind.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/fake_msi.h"
#include "devices/testing/fake_virtio_device.h"
#include "devices/testing/run_task.h"
#include "devices/virtio/transport/virtio_mmio.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kEcamBase = 0xe000'0000;
constexpr uint64_t kMmioBase = 0xd000'0000;

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool is_empty() const { return bytes_.empty(); }
  template <typename T>
  T take() {
    T value{};
    const size_t size = std::min(sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
};

class Guest {
 public:
  Guest() {
    bus_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = kEcamBase,
                            .memory32 = PciWindow(0xc000'0000, 0x1000'0000),
                            .memory64 = PciWindow(0x10'0000'0000, 0x1'0000'0000)});
    pio_.add(PciBus::kConfigPorts, PciBus::kConfigPortCount, bus_->config_ports()).value();
    for (size_t i = 0; i < pci_.size(); ++i) {
      pci_[i] = *VirtioPci::create(
          {.device = pci_devices_[i], .msi = msi_, .doorbells = doorbells_, .main_loop = loop_});
      bus_->add(*pci_[i]).value();
      pci_[i]->config_write(pci::kCommand, std::array<uint8_t, 1>{pci::kCommandMemory});
    }
    // Its driver waits for stops, so they come at once; the others' come when the input says so.
    virtio_mmio_ = VirtioMmio::create({.device = mmio_device_,
                                       .doorbells = doorbells_,
                                       .irq = irq_,
                                       .main_loop = loop_,
                                       .base = kMmioBase});
    mmio_.add(kMmioBase, VirtioMmio::kSizeBytes, *virtio_mmio_).value();
    for (FakeVirtioDevice& device : pci_devices_) device.hold_stops();
  }

  ~Guest() {
    for (size_t i = 0; i < pci_.size(); ++i) {
      bool has_ended = false;
      start_task(pci_[i]->reset(), has_ended);
      pci_devices_[i].finish_stop();
      loop_.run_until_idle();
      SKIFF_CHECK(has_ended && !pci_[i]->bar_address(0));
      SKIFF_CHECK(!pci_devices_[i].is_running());
    }
    SKIFF_CHECK(run_task(virtio_mmio_->reset()));
    SKIFF_CHECK(!mmio_device_.is_running() && !irq_.high());
    SKIFF_CHECK(doorbells_.attached() == 0);
  }

  void step(Input& input) {
    const auto what = input.take<uint8_t>();
    const size_t which = what >> 7;
    switch (what & 7) {
      case 0:
        return access(mmio_, kEcamBase + 0x8000 * (which + 1) + input.take<uint8_t>(), input);
      case 1:
        return access(mmio_, kEcamBase + input.take<uint32_t>() % PciBus::kEcamSizeBytes, input);
      case 2:
        return access(pio_, PciBus::kConfigPorts + input.take<uint8_t>() % 8u, input);
      case 3:
        return access(mmio_, pci_[which]->bar_address(0).value_or(0) + input.take<uint8_t>(),
                      input);
      case 4:
        return access(mmio_, pci_[which]->bar_address(0).value_or(0) + input.take<uint16_t>(),
                      input);
      case 5:
        return access(mmio_, kMmioBase + input.take<uint16_t>() % VirtioMmio::kSizeBytes, input);
      case 6:
        return tell(device(input.take<uint8_t>()), input.take<uint8_t>());
      default:
        pci_devices_[which].finish_stop();
        return;
    }
  }

 private:
  static void access(const AddressBus& bus, uint64_t address, Input& input) {
    const auto how = input.take<uint8_t>();
    std::array<uint8_t, 8> data{};
    const auto bytes = std::span(data).first((how & 7) + 1u);
    if ((how & 8) != 0) {
      bus.read(address, bytes);
      return;
    }
    // Small values are what most registers know.
    store_le(bytes, (how & 16) != 0 ? input.take<uint64_t>() : input.take<uint8_t>());
    bus.write(address, bytes);
  }

  FakeVirtioDevice& device(uint8_t which) {
    return which % 3 == 2 ? mmio_device_ : pci_devices_[which % 3];
  }

  static void tell(FakeVirtioDevice& device, uint8_t what) {
    if (what % 4 == 0) device.transport().need_reset();
    if (what % 4 == 1) device.transport().interrupt_config();
    if (what % 4 >= 2) device.transport().interrupt_queue(what % 4 - 2);
  }

  MmioBus mmio_;
  PioBus pio_;
  loop::ManualLoop loop_;
  FakeMsiSink msi_;
  FakeIrqLine irq_;
  FakeDoorbellHub doorbells_;
  std::array<FakeVirtioDevice, 2> pci_devices_;
  FakeVirtioDevice mmio_device_;
  std::unique_ptr<PciBus> bus_;
  std::array<std::unique_ptr<VirtioPci>, 2> pci_;
  std::unique_ptr<VirtioMmio> virtio_mmio_;
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  skiff::loop::set_log_level(skiff::loop::LogLevel::kOff);
  skiff::devices::Input input({data, size});
  skiff::devices::Guest guest;
  while (!input.is_empty()) guest.step(input);
  return 0;
}
