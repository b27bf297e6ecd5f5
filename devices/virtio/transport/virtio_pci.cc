// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_pci.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "devices/core/bus.h"
#include "devices/pci/pci_config_space.h"
#include "devices/pci/pci_device.h"
#include "devices/pci/pci_registers.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/result.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

using QueueArea = VirtioRegisters::QueueArea;

constexpr uint16_t kVirtioVendor = 0x1af4;  // 4.1.2.
constexpr uint16_t kDeviceIdBase = 0x1040;  // 4.1.2: plus the virtio device id.
constexpr uint32_t kIsrQueue = 1 << 0;      // 4.1.4.5.
constexpr uint32_t kIsrConfig = 1 << 1;
constexpr uint64_t kRegionSizeBytes = 0x1000;  // Of all regions below the doorbells.

// Capability types (4.1.4).
constexpr uint8_t kCapCommon = 1;
constexpr uint8_t kCapNotify = 2;
constexpr uint8_t kCapIsr = 3;
constexpr uint8_t kCapDevice = 4;
constexpr uint8_t kCapWindow = 5;
// Offsets within struct virtio_pci_cap, and the data behind it in virtio_pci_cfg_cap (4.1.4.9).
constexpr uint16_t kCapBar = 4;
constexpr uint16_t kCapOffset = 8;
constexpr uint16_t kCapLength = 12;
constexpr uint16_t kCapWindowData = 16;

// Fields of the common configuration (4.1.4.3).
enum Common : uint8_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kNumQueues = 0x12,
  kDeviceStatus = 0x14,
  kConfigGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOff = 0x1e,
  kQueueDesc = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueNotifyData = 0x38,  // Of a feature that is not offered.
  kQueueReset = 0x3a,
  kCommonSizeBytes = 0x40,
};

struct Field {
  uint8_t offset;
  uint8_t size_bytes;
};
constexpr std::array<Field, 18> kFields = {{{kDeviceFeatureSelect, 4},
                                            {kDeviceFeature, 4},
                                            {kDriverFeatureSelect, 4},
                                            {kDriverFeature, 4},
                                            {kConfigVector, 2},
                                            {kNumQueues, 2},
                                            {kDeviceStatus, 1},
                                            {kConfigGeneration, 1},
                                            {kQueueSelect, 2},
                                            {kQueueSize, 2},
                                            {kQueueVector, 2},
                                            {kQueueEnable, 2},
                                            {kQueueNotifyOff, 2},
                                            {kQueueDesc, 8},
                                            {kQueueDriver, 8},
                                            {kQueueDevice, 8},
                                            {kQueueNotifyData, 2},
                                            {kQueueReset, 2}}};

// The field that a byte belongs to.
const Field* field_at(uint64_t offset_bytes) {
  for (const Field& field : kFields)
    if (offset_bytes >= field.offset && offset_bytes < field.offset + uint64_t{field.size_bytes})
      return &field;
  return nullptr;
}

// PCI 3.0, appendix D. Guests go by the device id; these are for people who list devices.
uint32_t class_code(VirtioId id) {
  switch (id) {
    case VirtioId::kNet:
      return 0x020000;  // Ethernet controller.
    case VirtioId::kBlock:
      return 0x018000;  // Mass storage, other.
    case VirtioId::kConsole:
      return 0x078000;  // Communication, other.
    case VirtioId::kEntropy:
      break;
  }
  return 0xff0000;  // Fits no class.
}

PciIdentity identity_of(VirtioId id) {
  const auto device_id = static_cast<uint16_t>(kDeviceIdBase + static_cast<uint16_t>(id));
  // 4.1.2.1: revision 1 or higher and a subsystem id of 0x40 or higher say "not transitional".
  return {.vendor_id = kVirtioVendor,
          .device_id = device_id,
          .revision = 1,
          .class_code = class_code(id),
          .subsystem_vendor_id = kVirtioVendor,
          .subsystem_id = device_id};
}

}  // namespace

loop::Result<std::unique_ptr<VirtioPci>> VirtioPci::create(const Options& options) {
  if (options.device.queue_count() > kQueuesMax)
    return loop::Error(
        loop::ErrorKind::kInvalidArgument,
        fmt::format("{}: {} queues; a PCI device can have {} at most", options.device.name(),
                    options.device.queue_count(), kQueuesMax));
  std::unique_ptr<VirtioPci> transport(new VirtioPci(options));
  options.device.attach(*transport);
  return transport;
}

VirtioPci::VirtioPci(const Options& options)
    : PciDevice(std::string(options.device.name()), identity_of(options.device.id())),
      device_(options.device),
      main_loop_(options.main_loop),
      registers_(options.device, *this),
      // Whatever the size of the write: which queue is meant is in the address.
      doorbells_(options.doorbells, options.device,
                 {.offset_bytes = kDoorbells, .stride_bytes = kDoorbellStrideBytes}),
      msix_(options.msi, static_cast<uint16_t>(options.device.queue_count() + 1),
            std::string(options.device.name())),
      queue_vectors_(options.device.queue_count()) {
  for (auto& vector : queue_vectors_) vector.store(kNoVector, std::memory_order_relaxed);
  msix_.set_listener([this](uint16_t vector) { on_vector_changed(vector); });
  add_bar(kBar, {.kind = PciBarKind::kMemory64, .size_bytes = kBarSizeBytes, .registers = this});
  add_capabilities();
}

void VirtioPci::add_capabilities() {
  add_msix(msix_, {.bar = kBar,
                   .table_offset_bytes = static_cast<uint32_t>(kVectorTable),
                   .pending_offset_bytes = static_cast<uint32_t>(kPendingBits)});
  add_virtio_capability({kCapCommon, 0, kCommonSizeBytes}, {});
  std::array<uint8_t, 4> multiplier{};  // notify_off_multiplier, 4.1.4.4.
  store_le(multiplier, kDoorbellStrideBytes);
  const uint32_t doorbell_bytes =
      kDoorbellStrideBytes * std::max<uint32_t>(device_.queue_count(), 1);
  add_virtio_capability({kCapNotify, kDoorbells, doorbell_bytes}, multiplier);
  add_virtio_capability({kCapIsr, kIsr, 1}, {});
  add_virtio_capability({kCapDevice, kDeviceConfig, kRegionSizeBytes}, {});
  const std::array<uint8_t, 4> window{};
  window_capability_ = add_virtio_capability({kCapWindow, 0, 0}, window);
  // 4.1.4.9: the driver sets bar, offset and length, then uses the data.
  set_writable(static_cast<uint16_t>(window_capability_ + kCapBar), 1, 0xff);
  set_writable(static_cast<uint16_t>(window_capability_ + kCapOffset), 8, ~uint64_t{0});
  set_writable(static_cast<uint16_t>(window_capability_ + kCapWindowData), 4, 0xffff'ffff);
}

uint16_t VirtioPci::add_virtio_capability(const Capability& capability,
                                          std::span<const uint8_t> tail) {
  std::array<uint8_t, 18> body{};  // struct virtio_pci_cap from cap_len on, and the tail.
  const size_t size = 14 + tail.size();
  SKIFF_CHECK(size <= body.size());
  body[0] = static_cast<uint8_t>(size + 2);
  body[1] = capability.type;
  body[2] = kBar;
  store_le(std::span(body).subspan(kCapOffset - 2, 4), capability.offset_bytes);
  store_le(std::span(body).subspan(kCapLength - 2, 4), capability.length_bytes);
  std::ranges::copy(tail, body.begin() + 14);
  return add_capability(pci::kCapabilityVendor, std::span(body).first(size));
}

loop::Task<void> VirtioPci::reset() {
  co_await registers_.reset(main_loop_);
  config_store(static_cast<uint16_t>(window_capability_ + kCapBar), 1, kBar);
  config_store(static_cast<uint16_t>(window_capability_ + kCapOffset), 8, 0);
  config_store(static_cast<uint16_t>(window_capability_ + kCapWindowData), 4, 0);
  reset_config();
}

void VirtioPci::interrupt_queue(QueueIndex queue) {
  SKIFF_CHECK(queue < queue_vectors_.size());
  if (!msix_.is_enabled()) {
    // 4.1.4.5.1: the ISR is for drivers that do without MSI-X.
    isr_.fetch_or(kIsrQueue, std::memory_order_acq_rel);
    return;
  }
  const uint16_t vector = queue_vectors_[queue].load(std::memory_order_acquire);
  if (vector != kNoVector) msix_.trigger(vector);
}

void VirtioPci::interrupt_queues(std::span<const QueueIndex> queues) {
  if (queues.size() == 1 || !msix_.is_enabled()) return interrupt_queue(queues.front());
  std::bitset<kQueuesMax + 1> sent;
  for (const QueueIndex queue : queues) {
    const uint16_t vector = queue_vectors_[queue].load(std::memory_order_acquire);
    if (vector == kNoVector) continue;
    if (vector < sent.size()) {
      if (sent[vector]) continue;
      sent[vector] = true;
    }
    // What was looked at, whatever the driver has written since: it stands for the others as well.
    msix_.trigger(vector);
  }
}

void VirtioPci::interrupt_config() { registers_.config_changed(); }

void VirtioPci::need_reset() { registers_.need_reset(); }

void VirtioPci::set_doorbell_path(QueueIndex queue, DoorbellPath path) {
  doorbells_.set_path(queue, path);
}

void VirtioPci::send_config_interrupt() {
  // 4.1.4.5.1: set in any case, before the interrupt.
  isr_.fetch_or(kIsrConfig, std::memory_order_acq_rel);
  const uint16_t vector = config_vector_.load(std::memory_order_acquire);
  if (msix_.is_enabled() && vector != kNoVector) msix_.trigger(vector);
}

void VirtioPci::on_start(const VirtioStart& start) { doorbells_.start(start); }

void VirtioPci::on_stop() { doorbells_.stop(); }

void VirtioPci::on_stopped() {
  isr_.store(0, std::memory_order_release);
  config_vector_.store(kNoVector, std::memory_order_release);
  for (size_t i = 0; i < queue_vectors_.size(); ++i)
    set_queue_vector(static_cast<QueueIndex>(i), kNoVector);
}

void VirtioPci::on_queue_start(QueueIndex queue) { doorbells_.start_queue(queue); }

void VirtioPci::on_queue_stop(QueueIndex queue) { doorbells_.stop_queue(queue); }

void VirtioPci::on_queue_stopped(QueueIndex queue) { set_queue_vector(queue, kNoVector); }

void VirtioPci::set_queue_vector(QueueIndex queue, uint16_t vector) {
  if (queue_vectors_[queue].exchange(vector, std::memory_order_acq_rel) != vector)
    tell_target(queue);
}

void VirtioPci::tell_target(QueueIndex queue) {
  const uint16_t vector = queue_vectors_[queue].load(std::memory_order_acquire);
  device_.interrupt_target_changed(queue,
                                   vector == kNoVector ? std::nullopt : msix_.target(vector));
}

void VirtioPci::on_vector_changed(uint16_t vector) {
  for (size_t i = 0; i < queue_vectors_.size(); ++i)
    if (queue_vectors_[i].load(std::memory_order_acquire) == vector)
      tell_target(static_cast<QueueIndex>(i));
}

void VirtioPci::on_bar_moved(uint8_t index, std::optional<uint64_t> address) {
  if (index == kBar) doorbells_.set_base(address);
}

void VirtioPci::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  if (offset_bytes >= kVectorTable) return msix_.read_table(offset_bytes - kVectorTable, data);
  std::ranges::fill(data, uint8_t{0});
  if (offset_bytes >= kDoorbells) return;  // Write-only.
  if (offset_bytes >= kPendingBits) return msix_.read_pending(offset_bytes - kPendingBits, data);
  if (offset_bytes >= kDeviceConfig) return device_.read_config(offset_bytes - kDeviceConfig, data);
  if (offset_bytes >= kIsr) {
    // 4.1.4.5: reading acknowledges.
    if (offset_bytes == kIsr) data[0] = isr_.exchange(0, std::memory_order_acq_rel);
    return;
  }
  for (size_t i = 0; i < data.size(); ++i) {
    const Field* field = field_at(offset_bytes + i);
    if (field == nullptr) continue;
    const uint64_t shift = 8 * (offset_bytes + i - field->offset);
    data[i] = static_cast<uint8_t>(read_common(field->offset) >> shift);
  }
}

void VirtioPci::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes >= kVectorTable) return msix_.write_table(offset_bytes - kVectorTable, data);
  if (offset_bytes >= kDoorbells) return kick(offset_bytes - kDoorbells);
  if (offset_bytes >= kPendingBits) return;  // Read-only (PCI 3.0, 6.8.2.10).
  if (offset_bytes >= kDeviceConfig)
    return device_.write_config(offset_bytes - kDeviceConfig, data);
  if (offset_bytes < kCommonSizeBytes) write_common(offset_bytes, data);
}

// The way of a kick whose doorbell is not attached.
void VirtioPci::kick(uint64_t doorbell_offset_bytes) {
  const uint64_t queue = doorbell_offset_bytes / kDoorbellStrideBytes;
  if (queue < queue_vectors_.size() && registers_.is_running())
    device_.kick(static_cast<QueueIndex>(queue));
}

uint64_t VirtioPci::read_common(uint64_t field) const {
  const uint16_t queue = registers_.selected_queue();
  const bool has_queue = queue < queue_vectors_.size();
  switch (field) {
    case kDeviceFeatureSelect:
      return registers_.device_feature_word();
    case kDeviceFeature:
      return registers_.device_features();
    case kDriverFeatureSelect:
      return registers_.driver_feature_word();
    case kDriverFeature:
      return registers_.driver_features();
    case kConfigVector:
      return config_vector_.load(std::memory_order_acquire);
    case kNumQueues:
      return queue_vectors_.size();
    case kDeviceStatus:
      return registers_.status();
    case kConfigGeneration:
      return registers_.config_generation();
    case kQueueSelect:
      return queue;
    case kQueueSize:
      return registers_.queue_size();
    case kQueueVector:
      return has_queue ? queue_vectors_[queue].load(std::memory_order_acquire) : kNoVector;
    case kQueueEnable:
      return registers_.is_queue_enabled() ? 1 : 0;
    case kQueueNotifyOff:
      return has_queue ? queue : 0;
    case kQueueDesc:
      return registers_.queue_address(QueueArea::kDescriptors);
    case kQueueDriver:
      return registers_.queue_address(QueueArea::kAvailable);
    case kQueueDevice:
      return registers_.queue_address(QueueArea::kUsed);
    case kQueueReset:
      return registers_.is_queue_resetting() ? 1 : 0;
    default:
      return 0;
  }
}

// 4.1.3.1: each field is written as a whole, a 64-bit one also in halves; other writes do nothing.
void VirtioPci::write_common(uint64_t offset_bytes, std::span<const uint8_t> data) {
  const Field* field = field_at(offset_bytes);
  if (field == nullptr) return;
  if (field->size_bytes == 8) return write_queue_address(offset_bytes, data);
  if (offset_bytes == field->offset && data.size() == field->size_bytes)
    write_common_field(field->offset, static_cast<uint32_t>(load_le(data)));
}

void VirtioPci::write_queue_address(uint64_t offset_bytes, std::span<const uint8_t> data) {
  const bool is_whole = offset_bytes % 8 == 0 && data.size() == 8;
  const bool is_half = offset_bytes % 4 == 0 && data.size() == 4;
  if (!is_whole && !is_half) return;
  const uint64_t shift = offset_bytes % 8 == 0 ? 0 : 32;
  const uint64_t mask = is_whole ? ~uint64_t{0} : uint64_t{0xffff'ffff} << shift;
  const auto area = offset_bytes < kQueueDriver   ? QueueArea::kDescriptors
                    : offset_bytes < kQueueDevice ? QueueArea::kAvailable
                                                  : QueueArea::kUsed;
  registers_.write_queue_address(area, load_le(data) << shift, mask);
}

// 4.1.5.1.2: a vector that is not there reads back as none, which tells the driver.
uint16_t VirtioPci::checked_vector(uint32_t vector) const {
  return vector < msix_.vector_count() ? static_cast<uint16_t>(vector) : kNoVector;
}

void VirtioPci::write_common_field(uint64_t field, uint32_t value) {
  const uint16_t queue = registers_.selected_queue();
  switch (field) {
    case kDeviceFeatureSelect:
      return registers_.select_device_features(value);
    case kDriverFeatureSelect:
      return registers_.select_driver_features(value);
    case kDriverFeature:
      return registers_.write_driver_features(value);
    case kConfigVector:
      return config_vector_.store(checked_vector(value), std::memory_order_release);
    case kDeviceStatus:
      return registers_.write_status(static_cast<uint8_t>(value));
    case kQueueSelect:
      return registers_.select_queue(static_cast<uint16_t>(value));
    case kQueueSize:
      return registers_.write_queue_size(value);
    case kQueueVector:
      // While the queue is in use as well: the next interrupt goes to the new vector.
      if (queue < queue_vectors_.size()) set_queue_vector(queue, checked_vector(value));
      return;
    case kQueueEnable:
      // 4.1.4.3.2: a driver may not write 0 here; a reset is how a queue is given up.
      if (value == 1) registers_.write_queue_enable(true);
      return;
    case kQueueReset:
      if (value == 1) registers_.reset_queue();  // 4.1.4.3.1.
      return;
    default:
      return;
  }
}

// What an access to the data of VIRTIO_PCI_CAP_PCI_CFG means (4.1.4.9); nothing when it is none, or
// when the driver has not pointed the window at anything.
std::optional<VirtioPci::WindowAccess> VirtioPci::window_access(uint16_t offset_bytes,
                                                                size_t size_bytes) const {
  const auto data = static_cast<uint16_t>(window_capability_ + kCapWindowData);
  if (offset_bytes >= data + 4 || offset_bytes + size_bytes <= data) return std::nullopt;
  const auto offset =
      static_cast<uint32_t>(config_load(static_cast<uint16_t>(window_capability_ + kCapOffset), 4));
  const uint64_t length = config_load(static_cast<uint16_t>(window_capability_ + kCapLength), 4);
  const uint64_t bar = config_load(static_cast<uint16_t>(window_capability_ + kCapBar), 1);
  const bool is_size = length == 1 || length == 2 || length == 4;
  if (bar != kBar || !is_size || offset % length != 0 || offset >= kBarSizeBytes)
    return std::nullopt;
  return WindowAccess{offset, static_cast<uint16_t>(length)};
}

void VirtioPci::on_config_read(uint16_t offset_bytes, size_t size_bytes) {
  const std::optional<WindowAccess> access = window_access(offset_bytes, size_bytes);
  if (!access) return;
  std::array<uint8_t, 4> bytes{};
  bus_read(access->offset_bytes, std::span(bytes).first(access->length_bytes));
  config_store(static_cast<uint16_t>(window_capability_ + kCapWindowData), 4, load_le(bytes));
}

void VirtioPci::on_config_write(uint16_t offset_bytes, size_t size_bytes) {
  const std::optional<WindowAccess> access = window_access(offset_bytes, size_bytes);
  if (!access) return;
  std::array<uint8_t, 4> bytes{};
  store_le(bytes, config_load(static_cast<uint16_t>(window_capability_ + kCapWindowData), 4));
  bus_write(access->offset_bytes, std::span(bytes).first(access->length_bytes));
}

}  // namespace skiff::devices
