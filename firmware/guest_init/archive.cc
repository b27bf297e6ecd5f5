// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "firmware/cpio.h"
#include "firmware/guest_init/guest_init.h"
#include "firmware/guest_init/protocol.h"
#include "loop/check.h"

// NOLINTBEGIN(readability-identifier-naming): the assembler's names, in program.S.
extern "C" {
extern const std::byte skiff_guest_init_begin[];
extern const std::byte skiff_guest_init_end[];
}
// NOLINTEND(readability-identifier-naming)

namespace skiff::firmware {

std::span<const std::byte> guest_init_program() {
  return {skiff_guest_init_begin, skiff_guest_init_end};
}

std::vector<std::byte> guest_init_archive() {
  // The archive's paths are relative, the kernel's are not.
  const std::string_view path = std::string_view(guest_protocol::kInitPath).substr(1);
  CpioWriter archive;
  SKIFF_CHECK(archive.add_directory(path.substr(0, path.find('/')), 0755));
  SKIFF_CHECK(archive.add_file(path, 0755, guest_init_program()));
  return archive.finish();
}

}  // namespace skiff::firmware
