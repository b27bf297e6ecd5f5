// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/bench_payload.h"

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "loop/result.h"
#include "loop/unique_fd.h"

// NOLINTBEGIN(readability-identifier-naming): the assembler's names, in payload_file.S.
extern "C" {
extern const std::byte skiff_bench_payload_begin[];
extern const std::byte skiff_bench_payload_end[];
}
// NOLINTEND(readability-identifier-naming)

namespace skiff::vmm {

using loop::Error;
using loop::Result;

std::span<const std::byte> bench_payload() {
  return {skiff_bench_payload_begin, skiff_bench_payload_end};
}

Result<PayloadFile> PayloadFile::create() {
  loop::UniqueFd fd(::memfd_create("skiff-bench-payload", MFD_CLOEXEC));
  if (!fd) return Error::from_errno(errno, "Creating a file in memory");
  const std::span<const std::byte> bytes = bench_payload();
  const ssize_t written = ::write(fd.get(), bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size()))
    return Error::from_errno(written < 0 ? errno : ENOSPC, "Writing a file in memory");
  return PayloadFile(std::move(fd));
}

std::string PayloadFile::path() const {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
}

}  // namespace skiff::vmm
