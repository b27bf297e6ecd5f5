// SPDX-License-Identifier: GPL-2.0-or-later
// NbdAddress: where an NBD export is, as the user wrote it.
//
//   nbd://host[:port][/export]           TCP, port 10809 unless said
//   nbd+unix:///[export]?socket=/path    a unix socket
//
// The NBD URI specification (doc/uri.md of the NBD project), without TLS and vsock. Thread: any; a
// value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "loop/result.h"

namespace skiff::block {

struct NbdAddress {
  enum class Transport : uint8_t { kTcp, kUnix };
  Transport transport = Transport::kTcp;
  std::string host;  // kTcp: a name or number, without brackets.
  std::string port = "10809";
  std::string socket;       // kUnix: the path.
  std::string export_name;  // Empty: the server's default export.
};

// Does the path of a disk mean an NBD server? A file of such a name can be written ./nbd:...
bool is_nbd_url(std::string_view path);

// kInvalidArgument, or kUnsupported for TLS and vsock; the message names the part that is wrong.
loop::Result<NbdAddress> parse_nbd_url(std::string_view url);

}  // namespace skiff::block
