// SPDX-License-Identifier: GPL-2.0-or-later
// A program of its own, because it counts every allocation of the process.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virtio_device.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

void* operator new(size_t size) {
  allocations.fetch_add(1);
  if (void* memory = std::malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace skiff::devices {
namespace {

TEST(VirtQueueAllocationTest, RequestsAllocateNothingOnceTheVectorsHaveGrown) {
  FakeGuestMemory memory(64 * 1024);
  constexpr uint64_t kFeatures = kVirtioRingEventIdx | kVirtioRingIndirectDesc;
  GuestDriver driver(memory, {.queue_size = 16, .features = kFeatures, .indirect_entries = 8});
  const GuestAddress data = driver.allocate(4096);
  VirtQueue queue(memory);
  ASSERT_TRUE(queue.configure(driver.layout(), kFeatures));
  const std::array<DriverBuffer, 5> buffers{
      DriverBuffer::readable(data, 16), DriverBuffer::readable(data, 512),
      DriverBuffer::writable(data, 512), DriverBuffer::writable(data, 512),
      DriverBuffer::writable(data, 1)};
  DescriptorChain chain;

  auto one_request = [&](GuestDriver::Placement placement) {
    driver.offer(buffers, placement);
    queue.disable_notifications();
    if (queue.pop(chain) != VirtQueue::Pop::kChain) return false;
    queue.push_used(chain.head(), 1);
    queue.publish_used();
    queue.enable_notifications();
    return driver.collect().has_value();
  };
  ASSERT_TRUE(one_request(GuestDriver::Placement::kDirect));  // The vectors grow.

  const uint64_t before = allocations.load();
  bool all = true;
  for (int i = 0; i < 10'000; ++i) {
    all = all && one_request(i % 2 == 0 ? GuestDriver::Placement::kDirect
                                        : GuestDriver::Placement::kIndirect);
  }
  EXPECT_EQ(allocations.load() - before, 0u);
  EXPECT_TRUE(all);
}

}  // namespace
}  // namespace skiff::devices
