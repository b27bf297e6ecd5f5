// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_url.h"

#include <spdlog/fmt/fmt.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// NBD protocol, "Values": no string is longer.
constexpr size_t kExportNameBytesMax = 4096;
constexpr size_t kHostBytesMax = 255;
constexpr std::array<std::string_view, 4> kPrefixes = {"nbd:", "nbd+", "nbds:", "nbds+"};
constexpr std::string_view kShapes =
    "write nbd://HOST[:PORT][/EXPORT] or nbd+unix:///[EXPORT]?socket=PATH";

Error wrong(std::string_view url, std::string_view what) {
  return Error(ErrorKind::kInvalidArgument, fmt::format("NBD URL {}: {}; {}", url, what, kShapes));
}

std::optional<uint8_t> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
  return std::nullopt;
}

// Nothing for a broken escape, or for a NUL, which would end the name early in every C interface.
std::optional<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const auto high = hex_digit(text[i + 1]);
      const auto low = hex_digit(text[i + 2]);
      if (!high || !low) return std::nullopt;
      c = static_cast<char>(*high * 16 + *low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    decoded.push_back(c);
  }
  return decoded;
}

bool is_port(std::string_view text) {
  if (text.size() > 5) return false;  // However many zeroes lead it.
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

// The parts between the separators, still escaped.
struct Parts {
  std::string_view scheme;
  std::string_view authority;
  std::string_view path;
  std::string_view query;
};

std::optional<Parts> split(std::string_view url) {
  const size_t colon = url.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  Parts parts;
  parts.scheme = url.substr(0, colon);
  std::string_view rest = url.substr(colon + 3);
  if (const size_t mark = rest.find('?'); mark != std::string_view::npos) {
    parts.query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
  }
  const size_t slash = rest.find('/');
  parts.authority = rest.substr(0, slash);
  if (slash != std::string_view::npos) parts.path = rest.substr(slash + 1);
  return parts;
}

Result<void> parse_authority(NbdAddress& address, std::string_view url, std::string_view text) {
  if (text.find('@') != std::string_view::npos) return wrong(url, "NBD has no users");
  std::string_view host = text;
  std::string_view after;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return wrong(url, "the address has no closing bracket");
    host = text.substr(1, end - 1);
    after = text.substr(end + 1);
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    after = text.substr(colon);
  }
  if (!after.empty()) {
    if (after.front() != ':' || !is_port(after.substr(1)))
      return wrong(url, fmt::format("\"{}\" is no port from 1 to 65535", after.substr(1)));
    address.port = after.substr(1);
  }
  const auto decoded = percent_decode(host);
  if (!decoded || decoded->size() > kHostBytesMax) return wrong(url, "this is no host name");
  if (decoded->empty()) return wrong(url, "it names no host");
  address.host = *decoded;
  return {};
}

Result<void> parse_query(NbdAddress& address, std::string_view url, std::string_view query) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const size_t equals = pair.find('=');
    const std::string_view key = pair.substr(0, equals);
    if (key != "socket" || equals == std::string_view::npos)
      return wrong(url, fmt::format("\"{}\" is no parameter; only socket=PATH is", pair));
    if (address.transport != NbdAddress::Transport::kUnix)
      return wrong(url, "socket= is for nbd+unix only");
    const auto socket = percent_decode(pair.substr(equals + 1));
    if (!socket || socket->empty() || socket->size() >= sizeof(sockaddr_un::sun_path))
      return wrong(url, "socket= is no path of 1 to 107 bytes");
    if (!address.socket.empty()) return wrong(url, "socket= is there twice");
    address.socket = *socket;
  }
  return {};
}

Result<NbdAddress::Transport> parse_scheme(std::string_view url, std::string_view scheme) {
  if (scheme == "nbd") return NbdAddress::Transport::kTcp;
  if (scheme == "nbd+unix") return NbdAddress::Transport::kUnix;
  if (scheme.starts_with("nbds")) {
    return Error(ErrorKind::kUnsupported,
                 fmt::format("NBD URL {}: NBD over TLS is not supported; use nbd:// through a "
                             "tunnel (ssh -L, stunnel, WireGuard), or nbd+unix://",
                             url));
  }
  return Error(ErrorKind::kUnsupported,
               fmt::format("NBD URL {}: \"{}\" is not supported; {}", url, scheme, kShapes));
}

}  // namespace

bool is_nbd_url(std::string_view path) {
  return std::ranges::any_of(kPrefixes,
                             [&](std::string_view prefix) { return path.starts_with(prefix); });
}

Result<NbdAddress> parse_nbd_url(std::string_view url) {
  const auto parts = split(url);
  if (!parts) return wrong(url, "there is no :// in it");
  auto transport = parse_scheme(url, parts->scheme);
  if (!transport) return transport.error();
  if (url.find('#') != std::string_view::npos)
    return wrong(url, "a # must be written as %23: there are no fragments");

  NbdAddress address;
  address.transport = *transport;
  const auto export_name = percent_decode(parts->path);
  if (!export_name || export_name->size() > kExportNameBytesMax)
    return wrong(url, "the export's name has a broken %, a NUL, or more than 4096 bytes");
  address.export_name = *export_name;
  SKIFF_RETURN_IF_ERROR(parse_query(address, url, parts->query));
  if (address.transport == NbdAddress::Transport::kUnix) {
    if (!parts->authority.empty())
      return wrong(url, "nbd+unix has no host: three slashes before the export's name");
    if (address.socket.empty()) return wrong(url, "it names no socket");
  } else {
    SKIFF_RETURN_IF_ERROR(parse_authority(address, url, parts->authority));
  }
  return address;
}

}  // namespace skiff::block
