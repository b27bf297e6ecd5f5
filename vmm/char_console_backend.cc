// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/char_console_backend.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "devices/chardev/char_backend.h"

namespace skiff::vmm {

CharConsoleBackend::CharConsoleBackend(std::unique_ptr<devices::CharBackend> host)
    : host_(std::move(host)) {}

void CharConsoleBackend::attach(Listener* listener) {
  listener_ = listener;
  if (listener_ == nullptr || is_started_) return;
  is_started_ = true;
  host_->start(*this);
}

size_t CharConsoleBackend::write(std::span<const std::byte> bytes) {
  return host_->write({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

size_t CharConsoleBackend::read(std::span<std::byte> into) {
  const size_t count = std::min(into.size(), input_bytes_);
  if (count == 0) return 0;
  const bool was_full = input_bytes_ == input_.size();
  std::memcpy(into.data(), input_.data(), count);
  input_bytes_ -= count;
  std::memmove(input_.data(), input_.data() + count, input_bytes_);
  if (was_full) host_->resume_input();
  return count;
}

void CharConsoleBackend::on_input(std::span<const uint8_t> data) {
  std::ranges::copy(data, input_.begin() + static_cast<std::ptrdiff_t>(input_bytes_));
  input_bytes_ += data.size();
  if (listener_ != nullptr) listener_->input_ready();
}

void CharConsoleBackend::on_writable() {
  if (listener_ != nullptr) listener_->output_ready();
}

void CharConsoleBackend::on_peer_changed(bool present) {
  is_open_ = present;
  if (listener_ != nullptr) listener_->host_changed();
}

}  // namespace skiff::vmm
