// SPDX-License-Identifier: GPL-2.0-or-later
// A VirtQueue over guest memory that the fuzzer writes at will. Every buffer that it hands out is
// touched, so that the sanitizer sees one that lies outside the regions.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kAddressMask = 0x7fff;
constexpr uint64_t kTouchedBytesMax = 64;

class QueueUnderTest {
 public:
  explicit QueueUnderTest(FuzzedDataProvider& data) : data_(data) {}

  void run() {
    configure();
    for (int steps = 0; steps < 2000 && data_.remaining_bytes() > 0; ++steps) step();
    // Whatever happened, what is in flight can be finished.
    while (!heads_.empty()) push_one();
    queue_.publish_used();
    SKIFF_CHECK(queue_.in_flight() == 0);
  }

 private:
  void configure() {
    heads_.clear();
    const QueueLayout layout{.size = data_.ConsumeBool()
                                         ? data_.PickValueInArray<uint16_t>({1, 2, 4, 8, 64, 256})
                                         : data_.ConsumeIntegral<uint16_t>(),
                             .descriptors = address(),
                             .available = address(),
                             .used = address()};
    configured_ = queue_.configure(layout, data_.ConsumeIntegral<uint64_t>()).has_value();
    SKIFF_CHECK(configured_ == queue_.is_configured());
    layout_ = layout;
  }

  GuestAddress address() {
    const uint64_t value = data_.ConsumeIntegral<uint64_t>();
    // Mostly near RAM and aligned, else nothing ever begins.
    return {data_.ConsumeBool() ? value & kAddressMask & ~uint64_t{15} : value};
  }

  void step() {
    switch (data_.ConsumeIntegralInRange<int>(0, 9)) {
      case 0:
      case 1:
      case 2:
        return pop();
      case 3:
        return push_one();
      case 4:
        queue_.publish_used();
        return;
      case 5:
        queue_.disable_notifications();
        return;
      case 6:
        queue_.enable_notifications();
        return;
      case 7:
        return write_descriptor();
      case 8:
        return write_memory();
      default:
        if (data_.ConsumeProbability<float>() < 0.1f) configure();
    }
  }

  void pop() {
    if (queue_.pop(chain_) != VirtQueue::Pop::kChain) return;
    SKIFF_CHECK(std::ranges::find(heads_, chain_.head()) == heads_.end());
    SKIFF_CHECK(chain_.head() < queue_.size());
    // Each descriptor yields one buffer per region at most.
    SKIFF_CHECK(chain_.readable().size() + chain_.writable().size() <=
                queue_.size() * memory_.memory().regions().size());
    heads_.push_back(chain_.head());
    SKIFF_CHECK(touch(chain_.readable(), false) == chain_.readable_bytes());
    SKIFF_CHECK(touch(chain_.writable(), true) == chain_.writable_bytes());
    if (data_.ConsumeProbability<float>() < 0.05f) {
      queue_.undo_pop(heads_.back());
      heads_.pop_back();
    }
  }

  // Both ends of each buffer; the middle lies between them in the same allocation.
  uint64_t touch(std::span<const iovec> parts, bool write) {
    uint64_t total = 0;
    for (const iovec& part : parts) {
      SKIFF_CHECK(part.iov_len > 0);
      auto* bytes = static_cast<volatile uint8_t*>(part.iov_base);
      const uint64_t step = std::max<uint64_t>(1, part.iov_len / kTouchedBytesMax);
      for (uint64_t i = 0; i < part.iov_len; i += step) {
        const uint8_t byte = bytes[i];
        if (write) bytes[i] = static_cast<uint8_t>(byte + 1);
      }
      (void)bytes[part.iov_len - 1];
      total += part.iov_len;
    }
    return total;
  }

  void push_one() {
    if (heads_.empty()) return;
    const size_t which = data_.ConsumeIntegralInRange<size_t>(0, heads_.size() - 1);
    queue_.push_used(heads_[which], data_.ConsumeIntegral<uint32_t>());
    heads_.erase(heads_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  // A descriptor that has a chance, and its place in the available ring.
  void write_descriptor() {
    if (!configured_) return;
    const uint16_t index = data_.ConsumeIntegral<uint16_t>();
    const VirtDescriptor descriptor{.address = address().value,
                                    .length_bytes = data_.ConsumeBool()
                                                        ? data_.ConsumeIntegral<uint8_t>() * 16u
                                                        : data_.ConsumeIntegral<uint32_t>(),
                                    .flags = data_.ConsumeIntegral<uint8_t>(),
                                    .next = data_.ConsumeIntegral<uint8_t>()};
    const uint16_t place = static_cast<uint16_t>(index % layout_.size);
    const GuestAddress at = layout_.descriptors + place * kVirtDescriptorBytes;
    memory_.memory().store(at, descriptor.address);
    memory_.memory().store(at + 8, descriptor.length_bytes);
    memory_.memory().store(at + 12, descriptor.flags);
    memory_.memory().store(at + 14, descriptor.next);
    if (!data_.ConsumeBool()) return;
    const auto avail = memory_.memory().load<uint16_t>(layout_.available + kRingIndexOffset);
    memory_.memory().store(layout_.available + avail_entry_offset(*avail & (layout_.size - 1u)),
                           place);
    memory_.memory().store(layout_.available + kRingIndexOffset, static_cast<uint16_t>(*avail + 1));
  }

  void write_memory() {
    const GuestAddress at{data_.ConsumeIntegral<uint64_t>() & kAddressMask};
    const auto bytes = data_.ConsumeBytes<uint8_t>(data_.ConsumeIntegralInRange<size_t>(1, 32));
    memory_.memory().write(at, std::as_bytes(std::span(bytes)));
  }

  FuzzedDataProvider& data_;
  // Two adjacent regions, a hole, one more.
  FakeGuestMemory memory_{std::vector<FakeGuestMemory::Range>{
      {GuestAddress{0}, 0x4000}, {GuestAddress{0x4000}, 0x1800}, {GuestAddress{0x7000}, 0x1000}}};
  VirtQueue queue_{memory_};
  QueueLayout layout_;
  bool configured_ = false;
  DescriptorChain chain_;
  std::vector<uint16_t> heads_;
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  skiff::devices::QueueUnderTest(data).run();
  return 0;
}
