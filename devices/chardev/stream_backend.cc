// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/stream_backend.h"

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>
#include <utility>

#include "devices/chardev/fd_stream.h"
#include "loop/event_loop.h"
#include "loop/log.h"

namespace skiff::devices {
namespace {

constexpr size_t kTypedAheadBytes = 64 * 1024;

}  // namespace

StreamBackend::StreamBackend(loop::EventLoop& loop, Options options)
    : description_(std::move(options.description)),
      terminal_(std::move(options.terminal)),
      on_escape_(std::move(options.on_escape)),
      help_(std::move(options.help)),
      typed_ahead_(kTypedAheadBytes) {
  if (on_escape_) filter_.emplace([this](char key) { on_command(key); });
  if (options.input)
    input_.emplace(
        loop, *std::move(options.input),
        FdInput::Callbacks{.room = [this] { return room_for_typed(); },
                           .data = [this](std::span<const uint8_t> data) { on_typed(data); },
                           .ended = [this](int os_error) { on_input_ended(os_error); }});
  if (options.output)
    output_.emplace(loop, *std::move(options.output), [this] { sink_->on_writable(); });
}

void StreamBackend::start(CharSink& sink) {
  sink_ = &sink;
  resume_input();
}

size_t StreamBackend::write(std::span<const uint8_t> data) {
  if (!output_ || output_broken_) return data.size();
  const ssize_t taken = output_->write(data);
  if (taken >= 0) return static_cast<size_t>(taken);
  discard_output(static_cast<int>(-taken));
  return data.size();
}

void StreamBackend::resume_input() {
  deliver();
  if (input_) input_->resume();
}

size_t StreamBackend::room_for_typed() {
  // The filter never makes more of it than was typed.
  return filter_ ? typed_ahead_.space() : sink_->input_room();
}

void StreamBackend::on_typed(std::span<const uint8_t> data) {
  if (!filter_) return sink_->on_input(data);
  std::array<uint8_t, 4096> copy;
  while (!data.empty()) {
    const auto piece = std::span(copy).first(std::min(data.size(), copy.size()));
    std::ranges::copy(data.first(piece.size()), piece.begin());
    data = data.subspan(piece.size());
    typed_ahead_.push(piece.first(filter_->filter(piece)));
  }
  deliver();
}

void StreamBackend::deliver() {
  std::array<uint8_t, 4096> buffer;
  while (typed_ahead_.size() > 0) {
    const size_t room = std::min(sink_->input_room(), buffer.size());
    if (room == 0) return;  // resume_input() follows.
    const size_t count = typed_ahead_.pop(std::span(buffer).first(room));
    sink_->on_input(std::span(buffer).first(count));
  }
}

void StreamBackend::on_command(char key) {
  if (key != 'h' && key != '?') return on_escape_(key);
  // Best effort: a terminal that takes no output shows no help.
  if (output_)
    static_cast<void>(output_->fd().write(
        std::span(reinterpret_cast<const uint8_t*>(help_.data()), help_.size())));
}

void StreamBackend::on_input_ended(int os_error) {
  if (os_error == 0) {
    SKIFF_LOG(kInfo, "Input of {} has ended", description_);
  } else {
    SKIFF_LOG(kWarn, "Reading from {} failed, the guest gets no more input from it: {}",
              description_, std::generic_category().message(os_error));
  }
}

void StreamBackend::discard_output(int os_error) {
  SKIFF_LOG(kWarn, "Output to {} failed and is discarded from now on: {}", description_,
            std::generic_category().message(os_error));
  output_broken_ = true;  // Not destroyed: this may run inside its callback.
}

}  // namespace skiff::devices
