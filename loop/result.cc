// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/result.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace skiff::loop {
namespace {

ErrorKind kind_of(int os_error) {
  switch (os_error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return ErrorKind::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::kPermission;
    case EBUSY:
    case EAGAIN:
    case EADDRINUSE:
    case EEXIST:
      return ErrorKind::kBusy;
    case ENOSYS:
    case EOPNOTSUPP:
    case ENOTTY:
      return ErrorKind::kUnsupported;
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
      return ErrorKind::kExhausted;
    case EINVAL:
    case EISDIR:
    case ENOTDIR:
      return ErrorKind::kInvalidArgument;
    case ECANCELED:
      return ErrorKind::kCancelled;
    default:
      return ErrorKind::kIo;
  }
}

}  // namespace

Error Error::from_errno(int os_error, std::string_view what) {
  std::string message(what);
  char buffer[128];
  message.append(": ").append(strerror_r(os_error, buffer, sizeof(buffer)));
  return Error(kind_of(os_error), std::move(message), os_error);
}

Error Error::with_context(std::string_view what, std::string_view subject) const {
  std::string message(what);
  if (!subject.empty()) message.append(" ").append(subject);
  message.append(": ").append(message_);
  return Error(kind_, std::move(message), os_error_);
}

}  // namespace skiff::loop
