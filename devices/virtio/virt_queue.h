// SPDX-License-Identifier: GPL-2.0-or-later
// VirtQueue: the device's side of a split virtqueue (virtio 1.2, 2.7), without any notification or
// transport.
//
// Everything in the ring is the guest's and may change under us: each index and descriptor is read
// once, into a copy, and checked there. A ring that breaks the rules is broken until it is
// configured again; nothing aborts.
//
// Two choices the specification leaves open: a buffer that crosses from one RAM region into an
// adjacent one becomes several iovecs, and a descriptor of length zero counts towards the length of
// the chain but yields no iovec, whatever its address.
//
// Thread: the queue's home context throughout. Ownership: borrows the guest memory.
//
//   queue.disable_notifications();
//   while (queue.pop(slot.chain) == VirtQueue::Pop::kChain) start(slot);
//   if (queue.is_broken()) return transport.need_reset();
//   if (queue.enable_notifications() == VirtQueue::Rearm::kMoreAvailable) doorbell_bh.schedule();
//   ...
//   queue.push_used(slot.chain.head(), written_bytes);          // Once per request.
//   if (queue.publish_used()) transport.interrupt_queue(index);  // Once per turn.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/virtio_device.h"
#include "loop/result.h"

namespace skiff::devices {

struct VirtDescriptor;  // devices/virtio/virt_ring.h

// One request: host buffers in the order of the chain. Kept and refilled by its owner, so that a
// request allocates nothing once the vectors have grown.
class DescriptorChain {
 public:
  uint16_t head() const { return head_; }
  std::span<const iovec> readable() const { return readable_; }  // The device reads these.
  std::span<const iovec> writable() const { return writable_; }  // The device writes these.
  uint64_t readable_bytes() const { return readable_bytes_; }
  uint64_t writable_bytes() const { return writable_bytes_; }

 private:
  friend class VirtQueue;
  uint16_t head_ = 0;
  uint64_t readable_bytes_ = 0;
  uint64_t writable_bytes_ = 0;
  bool has_writable_ = false;  // Of any length, also zero.
  std::vector<iovec> readable_;
  std::vector<iovec> writable_;
};

class VirtQueue {
 public:
  enum class Pop : uint8_t { kChain, kEmpty, kBroken };
  enum class Rearm : uint8_t { kIdle, kMoreAvailable };

  explicit VirtQueue(const GuestMemory& memory) : memory_(memory) {}

  // Takes the driver's layout; indices start at zero, unless it is to be resumed: then what an
  // InflightLog has open is popped first. kCorrupt when a part is misaligned, outside
  // RAM, or the size is not a power of two up to 32768 (2.7). `features`: kVirtioRing* bits the
  // driver agreed to.
  loop::Result<void> configure(const QueueLayout& layout, uint64_t features);
  // Forgets the layout and all chains in flight; pop() finds nothing.
  void release();

  bool is_configured() const { return size_ != 0; }
  bool is_broken() const { return !broken_reason_.empty(); }
  // Which rule the driver broke, for the log; empty while it is not broken.
  std::string_view broken_reason() const { return broken_reason_; }
  uint16_t size() const { return size_; }
  // Chains popped and not pushed yet.
  uint16_t in_flight() const { return in_flight_; }

  // The next available chain, copied into `into`. Bounded by the queue's size in descriptors,
  // indirect ones included. A head that is still in flight breaks the queue, so the head numbers
  // of chains in flight are distinct and can serve as slot numbers.
  Pop pop(DescriptorChain& into);

  // Has the driver added what was not popped yet? One load; to be asked again and again.
  bool has_available() const;

  // Takes back the latest pop(): the chain will be popped again. For a device that stops while it
  // holds a chain it has done nothing with.
  void undo_pop(uint16_t head);

  // Notes a finished chain in the used ring; the driver does not see it before publish_used(). The
  // head must be in flight.
  void push_used(uint16_t head, uint32_t written_bytes);
  // Shows the driver everything pushed; true when it wants an interrupt for it (2.7.7, EVENT_IDX or
  // flags). A broken queue is not written to any more.
  bool publish_used();

  // Tells the driver that kicks are not needed for now: before pop() is called until it finds
  // nothing.
  void disable_notifications();
  // The same after enable_notifications() found nothing: not even for the next entry.
  void suppress_notifications();
  // Kicks are needed again; looks once more, because the driver may have added work just before.
  Rearm enable_notifications();

 private:
  struct Walk;

  void resume(const QueueResume& from);
  Pop break_queue(std::string_view reason);
  Pop pop_again(DescriptorChain& into);
  bool read_chain(uint16_t head, DescriptorChain& into);
  bool enter_indirect(const VirtDescriptor& descriptor, Walk& walk);
  bool add_buffer(const VirtDescriptor& descriptor, DescriptorChain& into);
  bool append_host_buffers(const VirtDescriptor& descriptor, std::vector<iovec>& into) const;
  bool test_and_set_in_flight(uint16_t head);
  void clear_in_flight(uint16_t head);

  const GuestMemory& memory_;
  std::byte* descriptors_ = nullptr;
  std::byte* avail_ = nullptr;
  std::byte* used_ = nullptr;
  uint16_t size_ = 0;  // 0: not configured.
  bool indirect_ = false;
  bool event_idx_ = false;
  uint16_t next_avail_ = 0;      // The next entry of the available ring to take.
  uint16_t seen_avail_ = 0;      // The driver's index when we last looked.
  uint16_t next_used_ = 0;       // Where the next finished chain goes.
  uint16_t published_used_ = 0;  // What the driver has been shown.
  uint16_t in_flight_ = 0;
  std::vector<uint64_t> in_flight_heads_;  // One bit per head.
  InflightLog* inflight_ = nullptr;
  std::vector<uint16_t> open_heads_;  // Of the log, latest first: to be popped again.
  std::string_view broken_reason_;
};

}  // namespace skiff::devices
