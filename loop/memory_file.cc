// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/memory_file.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

Result<UniqueFd> create_sealed_memory(const std::string& name, uint64_t size_bytes) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Error::from_errno(errno, fmt::format("Making {} bytes of shared memory", size_bytes));
  return fd;
}

}  // namespace skiff::loop
