// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/unix_socket.h"

#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {
namespace {

constexpr int kBacklog = 16;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("\"{}\": A socket path has 1 to {} characters", path,
                             sizeof(address.sun_path) - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// Removes a socket file whose listener is gone.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode))
    return Error(ErrorKind::kBusy, fmt::format("{}: There is a file that is no socket", path));
  const UniqueFd probe = make_socket();
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno == EAGAIN)
    return Error(ErrorKind::kBusy, fmt::format("{}: Another process listens here", path));
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  return {};
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path) {
  auto address = address_of(path);
  if (!address) return address.error();
  SKIFF_RETURN_IF_ERROR(remove_stale(path, *address));
  UniqueFd fd = make_socket();
  if (!fd) return Error::from_errno(errno, path);
  // Before bind(), so that there is no moment in which others may connect.
  if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) return Error::from_errno(errno, path);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0 ||
      ::listen(fd.get(), kBacklog) != 0)
    return Error::from_errno(errno, path);
  return fd;
}

}  // namespace skiff::loop
