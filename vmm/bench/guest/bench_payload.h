// SPDX-License-Identifier: GPL-2.0-or-later
// The payload guest that this program carries, as a file that Skiff and QEMU can boot.
//
// Thread: any. Ownership: the file is gone with its object; it has no name in any directory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {

std::span<const std::byte> bench_payload();

class PayloadFile {
 public:
  static loop::Result<PayloadFile> create();
  // For processes of the same user, as long as this object and this process live.
  std::string path() const;

 private:
  explicit PayloadFile(loop::UniqueFd fd) : fd_(std::move(fd)) {}
  loop::UniqueFd fd_;
};

}  // namespace skiff::vmm
