// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/services/exec_session.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/virtio/console/console_backend.h"
#include "devices/virtio/console/fd_console_backend.h"
#include "firmware/guest_init/protocol.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "vmm/console_ports.h"

namespace skiff::vmm {
namespace {

namespace protocol = firmware::guest_protocol;
using loop::Result;

constexpr size_t kReplyBytesMax = 4096;

}  // namespace

// The control port: the request goes in, replies come out line by line.
class ExecSession::ControlBackend final : public devices::ConsoleBackend {
 public:
  ControlBackend(std::string request, std::function<void(const std::string&)> on_line)
      : request_(std::move(request)), on_line_(std::move(on_line)) {}

  void attach(Listener*) override {}
  bool is_open() const override { return true; }
  void guest_changed(bool) override {}

  size_t write(std::span<const std::byte> bytes) override {
    for (const std::byte byte : bytes) {
      if (byte != std::byte{'\n'}) {
        // A guest that never ends its line is cut short; what it says makes no sense then.
        if (line_.size() < kReplyBytesMax) line_.push_back(static_cast<char>(byte));
        continue;
      }
      on_line_(std::exchange(line_, {}));
    }
    return bytes.size();
  }

  size_t read(std::span<std::byte> into) override {
    const size_t count = std::min(into.size(), request_.size() - sent_bytes_);
    std::ranges::copy_n(
        std::as_bytes(std::span(request_)).begin() + static_cast<std::ptrdiff_t>(sent_bytes_),
        static_cast<std::ptrdiff_t>(count), into.begin());
    sent_bytes_ += count;
    return count;
  }

 private:
  const std::string request_;
  size_t sent_bytes_ = 0;
  std::string line_;
  std::function<void(const std::string&)> on_line_;
};

Result<std::unique_ptr<ExecSession>> ExecSession::create(
    loop::EventLoop& loop, const std::string& command,
    std::function<void(const ExecResult&)> finished) {
  std::unique_ptr<ExecSession> session(new ExecSession(loop, std::move(finished)));
  ExecSession* self = session.get();
  const bool is_shell = command.empty();
  if (command.size() > protocol::kCommandBytesMax)
    return loop::Error(loop::ErrorKind::kInvalidArgument,
                       fmt::format("exec: {} bytes are more than the allowed {}", command.size(),
                                   protocol::kCommandBytesMax));
  std::string request = is_shell ? fmt::format("{}\n", protocol::kRequestShell)
                                 : fmt::format("exec {}\n{}", command.size(), command);
  self->control_ = std::make_unique<ControlBackend>(
      std::move(request), [self](const std::string& line) { self->on_reply(line); });
  if (is_shell) return session;
  SKIFF_RETURN_IF_ERROR(self->add_stream(protocol::kStdinPort, STDIN_FILENO, -1));
  SKIFF_RETURN_IF_ERROR(self->add_stream(protocol::kStdoutPort, -1, STDOUT_FILENO));
  SKIFF_RETURN_IF_ERROR(self->add_stream(protocol::kStderrPort, -1, STDERR_FILENO));
  return session;
}

ExecSession::ExecSession(loop::EventLoop& loop, std::function<void(const ExecResult&)> finished)
    : loop_(loop), finished_(std::move(finished)) {}

ExecSession::~ExecSession() = default;

Result<void> ExecSession::add_stream(const char* port, int input_fd, int output_fd) {
  devices::FdConsoleBackend::Options options;
  options.home = &loop_;
  options.name = port;
  // Copies: ours stay open for our own messages. One that is closed from the start stands for no
  // input, or for output that nobody wants.
  options.input.reset(::fcntl(input_fd, F_DUPFD_CLOEXEC, 3));
  options.output.reset(::fcntl(output_fd, F_DUPFD_CLOEXEC, 3));
  options.on_guest_changed = [this](bool open) {
    open_streams_ += open ? 1 : -1;
    finish_if_done();
  };
  auto stream = devices::FdConsoleBackend::create(std::move(options));
  if (!stream) return stream.error();
  ports_.push_back({false, port, stream->get()});
  streams_.push_back(*std::move(stream));
  return {};
}

std::vector<ConsolePortSpec> ExecSession::ports() {
  std::vector<ConsolePortSpec> ports = ports_;
  ports.push_back({false, protocol::kControlPort, control_.get()});
  return ports;
}

void ExecSession::on_reply(const std::string& line) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string_view word(line.data(), space);
  const std::string_view rest = std::string_view(line).substr(std::min(space + 1, line.size()));
  if (word == protocol::kReplyStarted) {
    result_.started = true;
  } else if (word == protocol::kReplyExit) {
    std::from_chars(rest.data(), rest.data() + rest.size(), result_.status);
    result_.status &= 0xff;
    has_ended_ = true;
    finish_if_done();
  } else if (word == protocol::kReplyError) {
    result_.started = false;
    result_.message = rest;
    has_ended_ = true;
    finish_if_done();
  } else {
    SKIFF_LOG_LIMITED(kWarn, "The guest's init said something unknown: \"{}\"", line);
  }
}

// The guest closes its streams before it reports; their closing is seen here once the output is
// through, which may be later when our own stdout is slow.
void ExecSession::finish_if_done() {
  if (!has_ended_ || !finished_) return;
  if (result_.started && open_streams_ > 0) return;
  loop_.post(
      [finished = std::exchange(finished_, nullptr), result = result_] { finished(result); });
}

}  // namespace skiff::vmm
