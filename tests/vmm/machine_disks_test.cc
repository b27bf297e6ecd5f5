// SPDX-License-Identifier: GPL-2.0-or-later
// Disks as the machine has them, on a bus, without the machine.
#include "vmm/machine_disks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/error_policy.h"
#include "block/filters/fault_rules.h"
#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_msi.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/virtio_device.h"
#include "loop/task_scope.h"
#include "loop/testing/manual_loop.h"
#include "tests/devices/pci/pci_driver.h"
#include "tests/temp_dir.h"
#include "tests/vmm/pci_disk_driver.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"

namespace skiff::vmm {
namespace {

using devices::PciBus;
using devices::PciDriver;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// One disk whose writes fail and stop the machine, driven by the one vCPU.
class StoppingDiskTest : public ::testing::Test {
 protected:
  StoppingDiskTest() {
    pci_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = PciDriver::kEcamBase,
                            .memory32 = devices::PciWindow(0xc000'0000, 0x1000'0000)});
    DiskConfig disk;
    disk.path = "null:size=1M";
    disk.submit = DiskSubmit::kVcpu;
    disk.errors.write = block::ErrorPolicy::kStop;
    disk.faults = *block::FaultRules::parse("error=EIO");
    MachineConfig config;
    config.disks = {disk};
    disks_ = std::make_unique<MachineDisks>(
        config, MachineDisks::Surroundings{
                    .main_loop = loop_,
                    .memory = memory_.memory(),
                    .apic_ids = {0},
                    .disk_stopped = [this](std::string why) { stops_.push_back(std::move(why)); }});
    device_ = *disks_->make_disk(disk);
    disks_->threads().set_vcpus({{&loop_.loop(), [] { return 0u; }}}).value();
    transport_ = *devices::VirtioPci::create({*device_, msi_, doorbells_, loop_});
    driver_ = std::make_unique<PciDiskDriver>(mmio_, *pci_->add(*transport_), memory_);
    EXPECT_TRUE(driver_->start(loop_));
  }
  ~StoppingDiskTest() override {
    reset();
    loop::TaskScope scope(loop_);
    scope.spawn(disks_->leave_drains());
    loop_.run_until_idle();
    transport_.reset();
    disks_->destroy_disk(*device_);
  }
  void reset() {
    loop::TaskScope scope(loop_);
    scope.spawn(transport_->reset());
    loop_.run_until_idle();
  }

  devices::MmioBus mmio_;
  devices::PioBus pio_;
  loop::ManualLoop loop_;
  devices::FakeGuestMemory memory_{8 << 20};
  devices::FakeMsiSink msi_;
  devices::FakeDoorbellHub doorbells_;
  std::vector<std::string> stops_;
  std::unique_ptr<PciBus> pci_;
  std::unique_ptr<MachineDisks> disks_;
  devices::VirtioDevice* device_ = nullptr;
  std::unique_ptr<devices::VirtioPci> transport_;
  std::unique_ptr<PciDiskDriver> driver_;
};

TEST_F(StoppingDiskTest, FailedRequestStopsTheMachineAndIsTriedAgain) {
  const auto status = driver_->offer_write(0, pattern(512));
  driver_->ring_by_exit(loop_);
  EXPECT_THAT(stops_, ElementsAre(HasSubstr("disk0 (null:size=1M): write of 512 bytes at 0")));
  EXPECT_EQ(driver_->status(status), 0xee);
  disks_->set_faults("disk0", *block::FaultRules::parse("")).value();
  disks_->retry_failed_requests();
  loop_.run_until_idle();
  EXPECT_EQ(driver_->status(status), 0);
}

TEST_F(StoppingDiskTest, FailedRequestOfADiskThatIsLeavingStopsNobodyAndFails) {
  const auto status = driver_->offer_write(0, pattern(512));
  disks_->retire_disk(*device_);
  driver_->ring_by_exit(loop_);
  EXPECT_THAT(stops_, IsEmpty());
  reset();
  EXPECT_EQ(driver_->status(status), VIRTIO_BLK_S_IOERR);
  EXPECT_THAT(stops_, IsEmpty());
}

}  // namespace
}  // namespace skiff::vmm
