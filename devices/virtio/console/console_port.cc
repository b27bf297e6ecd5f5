// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/console_port.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "devices/virtio/queue_runner.h"

namespace skiff::devices {

using Served = QueueHandler::Served;

namespace {

// A stop waits for nobody: this many turns' worth of output is still offered to the host.
constexpr int kTurnsAtStop = 64;

}  // namespace

void ConsolePort::start(QueueRunner& receive, QueueRunner& transmit, Owner& owner) {
  receive_ = &receive;
  transmit_ = &transmit;
  owner_ = &owner;
  guest_open_ = guest_close_pending_ = false;
  backend_.attach(this);
}

void ConsolePort::stop() {
  if (owner_ == nullptr) return;
  for (int turn = 0; turn < kTurnsAtStop && serve_transmit() == Served::kMore; ++turn) {
  }
  if (std::exchange(transmit_chain_waits_, false)) transmit_->complete(transmit_chain_.head(), 0);
  if (std::exchange(receive_chain_waits_, false)) receive_->queue().undo_pop(receive_chain_.head());
  backend_.attach(nullptr);
  if (guest_open_ || guest_close_pending_) backend_.guest_changed(false);
  guest_open_ = guest_close_pending_ = false;
  owner_ = nullptr;
  receive_ = transmit_ = nullptr;
}

Served ConsolePort::serve_transmit() {
  uint64_t bytes_left = kBytesPerTurn;
  for (uint16_t budget = transmit_->queue().size(); budget > 0 && bytes_left > 0; --budget) {
    if (!transmit_chain_waits_) {
      if (transmit_->queue().pop(transmit_chain_) != VirtQueue::Pop::kChain) {
        deliver_guest_close();
        return Served::kAll;
      }
      transmit_part_ = transmit_offset_ = 0;
      transmit_chain_waits_ = true;
    }
    if (!write_some(bytes_left)) return Served::kBlocked;
    if (transmit_part_ < transmit_chain_.readable().size()) return Served::kMore;
    transmit_chain_waits_ = false;
    transmit_->complete(transmit_chain_.head(), 0);
  }
  return Served::kMore;
}

bool ConsolePort::write_some(uint64_t& bytes_left) {
  const auto parts = transmit_chain_.readable();
  while (transmit_part_ < parts.size() && bytes_left > 0) {
    const iovec& part = parts[transmit_part_];
    const size_t wanted = std::min<uint64_t>(part.iov_len - transmit_offset_, bytes_left);
    const size_t taken =
        backend_.write({static_cast<const std::byte*>(part.iov_base) + transmit_offset_, wanted});
    bytes_left -= taken;
    transmit_offset_ += taken;
    if (taken < wanted) return false;
    if (transmit_offset_ == part.iov_len) {
      ++transmit_part_;
      transmit_offset_ = 0;
    }
  }
  return true;
}

Served ConsolePort::serve_receive() {
  if (!guest_open_) return Served::kBlocked;
  uint64_t bytes_left = kBytesPerTurn;
  for (uint16_t budget = receive_->queue().size(); budget > 0 && bytes_left > 0; --budget) {
    if (!receive_chain_waits_) {
      if (receive_->queue().pop(receive_chain_) != VirtQueue::Pop::kChain) return Served::kAll;
      receive_chain_waits_ = true;
    }
    const uint32_t given = read_some(bytes_left);
    // A chain without room is given back empty; one with room never is: to the guest a read of
    // nothing is the end of the file.
    if (given == 0 && receive_chain_.writable_bytes() > 0) return Served::kBlocked;
    receive_chain_waits_ = false;
    receive_->complete(receive_chain_.head(), given);
  }
  return Served::kMore;
}

uint32_t ConsolePort::read_some(uint64_t& bytes_left) {
  uint32_t total = 0;
  for (const iovec& part : receive_chain_.writable()) {
    const size_t wanted = std::min<uint64_t>(part.iov_len, bytes_left);
    if (wanted == 0) break;
    const size_t got = backend_.read({static_cast<std::byte*>(part.iov_base), wanted});
    total += static_cast<uint32_t>(got);
    bytes_left -= got;
    if (got < part.iov_len) break;
  }
  return total;
}

void ConsolePort::set_guest_open(bool open) {
  if (open) {
    deliver_guest_close();
    if (!std::exchange(guest_open_, true)) backend_.guest_changed(true);
    receive_->schedule();
  } else if (std::exchange(guest_open_, false)) {
    // The message may have overtaken the last output, which is on another queue.
    guest_close_pending_ = true;
    if (transmit_->queue().is_configured() && !transmit_->queue().is_broken())
      transmit_->schedule();
    else
      deliver_guest_close();
  }
}

void ConsolePort::deliver_guest_close() {
  if (std::exchange(guest_close_pending_, false)) backend_.guest_changed(false);
}

void ConsolePort::input_ready() {
  if (owner_ != nullptr) receive_->schedule();
}

void ConsolePort::output_ready() {
  if (owner_ != nullptr) transmit_->schedule();
}

void ConsolePort::host_changed() {
  if (owner_ != nullptr) owner_->host_side_changed(*this);
}

}  // namespace skiff::devices
