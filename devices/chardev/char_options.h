// SPDX-License-Identifier: GPL-2.0-or-later
// The option text of a character device, and the backend it asks for.
//
//   stdio | null | file:PATH | pty[:LINK] | unix:PATH
// Thread: main loop. Ownership: the caller's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "devices/chardev/char_backend.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::devices {

struct CharConfig {
  enum class Kind : uint8_t { kStdio, kNull, kFile, kPty, kUnix };
  Kind kind = Kind::kNull;
  std::string path;  // The file, the socket, or the link to the pty (may be empty).
  bool operator==(const CharConfig&) const = default;
};

// kInvalidArgument, naming the text and what is allowed.
loop::Result<CharConfig> parse_char_option(std::string_view text);

struct StdioOptions {
  int input_fd = 0;
  int output_fd = 1;
  // The user typed Ctrl-A and this key on a terminal (x is meant for quitting; h is taken). Main
  // loop; must not destroy the port. Null: Ctrl-A is a key like any other. Input that is not from a
  // terminal is passed on as it is.
  std::function<void(char key)> on_escape = nullptr;
  std::string help = "\r\nCtrl-A x  quit\r\nCtrl-A Ctrl-A  send Ctrl-A\r\nCtrl-A h  this help\r\n";
};

// Opens what the configuration names. `stdio` matters for that kind only; a descriptor that is
// closed is said once and reads as ended or discards. A caller of a pty tells the user its
// description().
loop::Result<std::unique_ptr<CharBackend>> create_char_backend(loop::EventLoop& loop,
                                                               const CharConfig& config,
                                                               const StdioOptions& stdio = {});

}  // namespace skiff::devices
