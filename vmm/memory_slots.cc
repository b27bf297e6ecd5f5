// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/memory_slots.h"

#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "loop/memory_file.h"
#include "loop/memory_lock.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint64_t kPageBytes = 4 * kKiB;
constexpr uint64_t kHugePageBytes = 2 * kMiB;
constexpr uint64_t kPreallocChunkBytes = 64 * kMiB;
constexpr unsigned kMostPreallocThreads = 16;
// Since Linux 5.14; headers may be older.
constexpr int kMadvisePopulateWrite = 23;

uint64_t host_memory_bytes() {
  struct sysinfo info{};
  if (::sysinfo(&info) < 0) return 0;
  return (uint64_t{info.totalram} + info.totalswap) * info.mem_unit;
}

Result<void> check_size(uint64_t size_bytes, uint32_t address_bits) {
  if (size_bytes < kMiB || size_bytes % kPageBytes != 0)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("A guest cannot have {} bytes of memory: give 1 MiB or more, in whole "
                             "pages of 4 KiB",
                             size_bytes));
  const uint64_t host_bytes = host_memory_bytes();
  if (host_bytes != 0 && size_bytes > host_bytes)
    return Error(ErrorKind::kExhausted,
                 fmt::format("{} MiB of guest memory is more than this host has ({} MiB with swap)",
                             size_bytes / kMiB, host_bytes / kMiB));
  if (pci_mmio64_window(size_bytes, address_bits).size_bytes == 0)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("{} MiB of guest memory does not fit the processor's {} bits of "
                             "physical address",
                             size_bytes / kMiB, address_bits));
  return {};
}

// Without MADV_POPULATE_WRITE (Linux before 5.14) every page is written to, which changes nothing:
// the guest has not run.
int populate(std::byte* start, uint64_t size_bytes) {
  if (::madvise(start, size_bytes, kMadvisePopulateWrite) == 0) return 0;
  if (errno != EINVAL) return errno;
  for (uint64_t at = 0; at < size_bytes; at += kPageBytes)
    *reinterpret_cast<volatile uint8_t*>(start + at) = 0;
  return 0;
}

// Several threads take chunk after chunk: the kernel clears pages at a few GB/s per core.
Result<void> preallocate(std::byte* start, uint64_t size_bytes) {
  std::atomic<uint64_t> next{0};
  std::atomic<int> failure{0};
  auto work = [&] {
    for (;;) {
      const uint64_t at = next.fetch_add(kPreallocChunkBytes, std::memory_order_relaxed);
      if (at >= size_bytes || failure.load(std::memory_order_relaxed) != 0) return;
      const int os_error = populate(start + at, std::min(kPreallocChunkBytes, size_bytes - at));
      if (os_error != 0) failure.store(os_error, std::memory_order_relaxed);
    }
  };
  const uint64_t chunks = (size_bytes + kPreallocChunkBytes - 1) / kPreallocChunkBytes;
  const auto cpus = static_cast<uint64_t>(std::max(::sysconf(_SC_NPROCESSORS_ONLN), 1L));
  const uint64_t helpers = std::min({chunks, cpus, uint64_t{kMostPreallocThreads}}) - 1;
  {
    std::vector<loop::Thread> threads;
    for (uint64_t i = 0; i < helpers; ++i)
      if (auto thread = loop::Thread::create({.name = "prealloc"}, work))
        threads.push_back(*std::move(thread));
    work();
  }
  const int os_error = failure.load(std::memory_order_relaxed);
  if (os_error != 0)
    return Error(ErrorKind::kExhausted,
                 fmt::format("Preallocating {} MiB of guest memory: {}; give the guest less, or "
                             "leave prealloc=on out",
                             size_bytes / kMiB, std::generic_category().message(os_error)),
                 os_error);
  return {};
}

// Where the kernel can use huge pages: guest and host address agree modulo 2 MiB.
std::byte* map_aligned(uint64_t size_bytes, int file, uint64_t file_offset) {
  const uint64_t room = size_bytes + kHugePageBytes;
  void* const raw = ::mmap(nullptr, room, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto from = reinterpret_cast<uint64_t>(raw);
  const uint64_t start = round_up(from, kHugePageBytes);
  auto* const bytes = static_cast<std::byte*>(raw);
  if (start > from) ::munmap(bytes, start - from);
  const uint64_t tail = from + room - (start + size_bytes);
  if (tail > 0) ::munmap(bytes + (start - from) + size_bytes, tail);
  std::byte* const aligned = bytes + (start - from);
  if (file >= 0 &&
      ::mmap(aligned, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
             file, static_cast<off_t>(file_offset)) != aligned) {
    ::munmap(aligned, size_bytes);
    return nullptr;
  }
  return aligned;
}

}  // namespace

Result<std::unique_ptr<MemorySlots>> MemorySlots::create(Vm& vm, const MemoryOptions& options) {
  const uint32_t address_bits = physical_address_bits(vm.system().supported_cpuid());
  SKIFF_RETURN_IF_ERROR(check_size(options.size_bytes, address_bits));
  std::unique_ptr<MemorySlots> slots(new MemorySlots(vm));
  if (options.shared) {
    // Nobody that it is shared with can take it away.
    auto file = loop::create_sealed_memory("guest-ram", options.size_bytes);
    if (!file) return file.error();
    slots->file_ = *std::move(file);
  }
  SKIFF_RETURN_IF_ERROR(slots->add(0, low_ram_bytes(options.size_bytes), options));
  if (const uint64_t high = high_ram_bytes(options.size_bytes); high > 0)
    SKIFF_RETURN_IF_ERROR(slots->add(kHighRamBase, high, options));
  slots->memory_ = devices::GuestMemory(slots->regions_);
  return slots;
}

// The slots stay with the Vm, which has no vCPU any more: taking them out would make the kernel
// wait for readers, and KVM hears of the unmapping anyway.
MemorySlots::~MemorySlots() {
  locks_.clear();
  for (const devices::GuestRegion& region : regions_) ::munmap(region.host, region.size_bytes);
}

std::vector<devices::SharedRegion> MemorySlots::shared_regions() const {
  std::vector<devices::SharedRegion> shared;
  uint64_t offset = 0;
  for (const devices::GuestRegion& region : regions_) {
    if (!file_) break;
    shared.push_back({.region = region, .fd = file_.get(), .file_offset = offset});
    offset += region.size_bytes;
  }
  return shared;
}

Result<void> MemorySlots::add(uint64_t guest_base, uint64_t size_bytes,
                              const MemoryOptions& options) {
  const uint64_t file_offset = std::exchange(file_bytes_, file_bytes_ + size_bytes);
  std::byte* const host = map_aligned(size_bytes, file_.get(), file_offset);
  if (host == nullptr)
    return Error::from_errno(errno,
                             fmt::format("Allocating {} MiB of guest memory", size_bytes / kMiB));
  const auto slot = static_cast<uint32_t>(regions_.size());
  regions_.push_back({{guest_base}, host, size_bytes});
  // A helper process has no use for it, and copying the page tables would stop the guest.
  if (::madvise(host, size_bytes, MADV_DONTFORK) < 0)
    return Error::from_errno(errno, "Keeping guest memory out of helper processes");
  // A host without transparent huge pages refuses; small pages do as well.
  if (options.huge_pages) ::madvise(host, size_bytes, MADV_HUGEPAGE);
  if (options.prealloc || options.lock) SKIFF_RETURN_IF_ERROR(preallocate(host, size_bytes));
  if (options.lock) {
    auto lock = loop::MemoryLock::lock_range({host, size_bytes});
    if (!lock) return lock.error().with_context("Guest memory with mlock=on");
    locks_.push_back(*std::move(lock));
  }
  return vm_.set_memory_slot(
      {.id = slot, .guest_base = guest_base, .size_bytes = size_bytes, .host = host});
}

}  // namespace skiff::vmm
