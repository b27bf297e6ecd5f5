// SPDX-License-Identifier: GPL-2.0-or-later
// Writes one seed for kernel_loader_fuzzer for each kind of kernel into the directory named by its
// argument.
#include <elf.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <ios>
#include <string>

#include "tests/firmware/kernel_images.h"

namespace {

using skiff::firmware::Bytes;

bool write_seed(const std::string& directory, const char* name, uint8_t choice,
                const Bytes& kernel) {
  std::ofstream file(directory + "/" + name, std::ios::binary);
  file.put(static_cast<char>(choice));
  file.write(reinterpret_cast<const char*>(kernel.data()),
             static_cast<std::streamsize>(kernel.size()));
  return file.good();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: kernel_loader_seeds DIRECTORY\n", stderr);
    return 2;
  }
  namespace firmware = skiff::firmware;
  const std::string directory = argv[1];
  const firmware::ElfSpec two_segments{
      .has_linux_note = true, .pvh_entry = 0x100020, .segments = {{}, {.address = 0x110000}}};
  const firmware::ElfSpec narrow{.is_64_bit = false, .machine = EM_386, .pvh_entry = 0x100020};
  const bool is_written =
      write_seed(directory, "bzimage", 4, firmware::make_bzimage()) &&
      write_seed(directory, "vmlinux", 0x31, firmware::make_elf(two_segments)) &&
      write_seed(directory, "pvh64", 0x0c, firmware::make_elf({.pvh_entry = 0x100020})) &&
      write_seed(directory, "pvh32", 2, firmware::make_elf(narrow)) &&
      write_seed(directory, "multiboot-elf", 0x0c, firmware::make_elf_multiboot()) &&
      write_seed(directory, "multiboot-flat", 0x13, firmware::make_flat_multiboot());
  return is_written ? 0 : 1;
}
