// SPDX-License-Identifier: GPL-2.0-or-later
// The parser of NBD URLs, fed with anything. What must hold: no crash, and what it takes can be
// used: no NUL, no name or path that is too long, a port that is one.
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "block/nbd/nbd_url.h"
#include "loop/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using skiff::block::NbdAddress;
  const std::string_view url(reinterpret_cast<const char*>(data), size);
  const auto address = skiff::block::parse_nbd_url(url);
  if (!address) return 0;
  SKIFF_CHECK(skiff::block::is_nbd_url(url));
  SKIFF_CHECK(address->export_name.size() <= 4096);
  SKIFF_CHECK(address->export_name.find('\0') == std::string::npos);
  if (address->transport == NbdAddress::Transport::kUnix) {
    SKIFF_CHECK(!address->socket.empty());
    SKIFF_CHECK(address->socket.size() < sizeof(sockaddr_un::sun_path));
    SKIFF_CHECK(address->socket.find('\0') == std::string::npos);
  } else {
    SKIFF_CHECK(!address->host.empty());
    SKIFF_CHECK(address->host.find('\0') == std::string::npos);
    SKIFF_CHECK(!address->port.empty() && address->port.size() < 256);
  }
  return 0;
}
