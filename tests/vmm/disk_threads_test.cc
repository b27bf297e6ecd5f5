// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/disk_threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/open_image.h"
#include "devices/core/guest_memory.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/machine_config.h"
#include "vmm/placement/queue_placer.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

class DiskThreadsTest : public ::testing::Test {
 protected:
  ~DiskThreadsTest() override {
    for (const auto& device : devices_) threads_->forget(*device);
    devices_.clear();
    images_.clear();
  }
  DiskConfig disk(DiskSubmit submit) {
    DiskConfig config;
    config.path = "null:size=1M";
    config.submit = submit;
    return config;
  }
  void create(uint32_t vcpus, std::vector<DiskConfig> disks) {
    MachineConfig config;
    config.cpus.count = vcpus;
    config.disks = std::move(disks);
    std::vector<uint32_t> apic_ids;
    for (uint32_t i = 0; i < vcpus; ++i) apic_ids.push_back(i);
    threads_ = std::make_unique<DiskThreads>(config, std::move(apic_ids), main_.loop());
  }
  loop::Result<devices::VirtioBlk*> add(const DiskConfig& config) {
    auto workers = threads_->workers();
    if (!workers) return workers.error();
    block::ImageOptions options;
    options.path = config.path;
    auto image = block::open_image(options, **workers);
    if (!image) return image.error();
    images_.push_back(*std::move(image));
    auto device = threads_->make_device(
        config, {.memory = &memory_, .image = images_.back().get(), .name = "disk0"});
    if (!device) return device.error();
    devices_.push_back(*std::move(device));
    return devices_.back().get();
  }
  static std::vector<QueuePlacer::VcpuContext> vcpus_with(loop::EventLoop* loop, size_t count) {
    return std::vector<QueuePlacer::VcpuContext>(count, {loop, [] { return 0u; }});
  }

  loop::ManualLoop main_;
  loop::ManualLoop vcpu_;
  devices::GuestMemory memory_;
  std::unique_ptr<DiskThreads> threads_;
  std::vector<std::unique_ptr<block::BlockBackend>> images_;
  std::vector<std::unique_ptr<devices::VirtioBlk>> devices_;
};

TEST_F(DiskThreadsTest, DiskHasAQueueForEachVcpuAndBeginsOnAnIothread) {
  create(4, {disk(DiskSubmit::kAuto)});
  const auto device = add(disk(DiskSubmit::kAuto));
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ((*device)->queue_count(), 4u);
  const DiskActivity activity = threads_->activity(**device);
  EXPECT_EQ(activity.submit, "auto");
  ASSERT_EQ(activity.queues.size(), 4u);
  EXPECT_EQ(activity.queues[3].home, "io0");
  EXPECT_EQ(activity.queues[3].mode, "iothread");
  EXPECT_TRUE(activity.latency.empty());
}

TEST_F(DiskThreadsTest, SubmitVcpuWithoutRingsOnVcpusIsRefused) {
  create(2, {disk(DiskSubmit::kVcpu)});
  ASSERT_TRUE(add(disk(DiskSubmit::kVcpu)));
  const auto set = threads_->set_vcpus(vcpus_with(nullptr, 2));
  ASSERT_FALSE(set);
  EXPECT_THAT(set.error().message(), HasSubstr("submit=vcpu is not possible here"));
}

TEST_F(DiskThreadsTest, ModeIsChangedWhileThereAreDisks) {
  create(2, {disk(DiskSubmit::kVcpu)});
  const auto device = add(disk(DiskSubmit::kVcpu));
  ASSERT_TRUE(device);
  ASSERT_TRUE(threads_->set_vcpus(vcpus_with(&vcpu_.loop(), 2)));
  EXPECT_EQ(threads_->activity(**device).queues[1].mode, "vcpu");
  // An IOThread is made when the first disk wants one.
  ASSERT_TRUE(threads_->set_submit(**device, DiskSubmit::kPoll));
  main_.run_until_idle();
  EXPECT_EQ(threads_->activity(**device).queues[1].home, "io0");
  EXPECT_EQ(threads_->activity(**device).queues[1].mode, "poll");
  EXPECT_EQ(threads_->activity(**device).submit, "poll");
}

TEST_F(DiskThreadsTest, FirstDiskMayComeLater) {
  create(1, {});
  const auto device = add(disk(DiskSubmit::kIothread));
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(threads_->activity(**device).queues[0].home, "io0");
}

}  // namespace
}  // namespace skiff::vmm
