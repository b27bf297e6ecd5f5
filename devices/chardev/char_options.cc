// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/char_options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/host_fd.h"
#include "devices/chardev/peer_backend.h"
#include "devices/chardev/raw_terminal.h"
#include "devices/chardev/stream_backend.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using Kind = CharConfig::Kind;

loop::Result<std::unique_ptr<CharBackend>> create_stdio(loop::EventLoop& loop,
                                                        const StdioOptions& stdio) {
  StreamBackend::Options options{.description = "stdio", .help = stdio.help};
  if (loop::Result<HostFd> input = HostFd::share_for_reading(stdio.input_fd)) {
    options.input = *std::move(input);
  } else {
    SKIFF_LOG(kWarn, "No input for the guest: {}", input.error().message());
  }
  if (loop::Result<HostFd> output = HostFd::share_for_writing(stdio.output_fd)) {
    options.output = *std::move(output);
  } else {
    SKIFF_LOG(kWarn, "The guest's output is discarded: {}", output.error().message());
  }
  if (options.input && ::isatty(stdio.input_fd) == 1) {
    auto terminal = RawTerminal::create(stdio.input_fd);
    if (!terminal) return terminal.error();
    options.terminal = *std::move(terminal);
    options.on_escape = stdio.on_escape;
  }
  return std::unique_ptr<CharBackend>(std::make_unique<StreamBackend>(loop, std::move(options)));
}

loop::Result<std::unique_ptr<CharBackend>> create_file(loop::EventLoop& loop,
                                                       const std::string& path) {
  // Non-blocking matters when it names a FIFO or a terminal.
  loop::UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666));
  if (!fd) {
    if (errno == ENXIO)
      return loop::Error(loop::ErrorKind::kNotFound,
                         "Writing to " + path + ": nobody reads this FIFO; start the reader first",
                         ENXIO);
    return loop::Error::from_errno(errno, "Writing to " + path);
  }
  loop::Result<HostFd> output = HostFd::own(std::move(fd));
  if (!output) return output.error();
  StreamBackend::Options options{.description = "file " + path, .output = *std::move(output)};
  return std::unique_ptr<CharBackend>(std::make_unique<StreamBackend>(loop, std::move(options)));
}

}  // namespace

loop::Result<CharConfig> parse_char_option(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const bool has_path = colon != std::string_view::npos;
  const std::string path(has_path ? text.substr(colon + 1) : std::string_view());
  const auto refuse = [text](const char* why) {
    return loop::Error(loop::ErrorKind::kInvalidArgument,
                       "'" + std::string(text) + "' " + why +
                           "; allowed: stdio, null, file:PATH, pty, pty:LINK, unix:PATH");
  };
  if (path.find('\0') != std::string::npos) return refuse("has a zero byte in its path");
  if (name == "stdio" || name == "null") {
    if (has_path) return refuse("takes no path");
    return CharConfig{.kind = name == "stdio" ? Kind::kStdio : Kind::kNull};
  }
  if (name != "file" && name != "pty" && name != "unix")
    return refuse("is no kind of character device");
  if (path.empty() && (has_path || name != "pty")) return refuse("lacks the path after ':'");
  const Kind kind = name == "file" ? Kind::kFile : name == "pty" ? Kind::kPty : Kind::kUnix;
  return CharConfig{.kind = kind, .path = path};
}

loop::Result<std::unique_ptr<CharBackend>> create_char_backend(loop::EventLoop& loop,
                                                               const CharConfig& config,
                                                               const StdioOptions& stdio) {
  switch (config.kind) {
    case Kind::kStdio:
      return create_stdio(loop, stdio);
    case Kind::kFile:
      return create_file(loop, config.path);
    case Kind::kPty:
      return PtyBackend::create(loop, config.path);
    case Kind::kUnix:
      return SocketBackend::create(loop, config.path);
    case Kind::kNull:
      break;
  }
  return std::unique_ptr<CharBackend>(
      std::make_unique<StreamBackend>(loop, StreamBackend::Options{.description = "null"}));
}

}  // namespace skiff::devices
