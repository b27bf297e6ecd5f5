# SPDX-License-Identifier: GPL-2.0-or-later
skiff_fuzzer(kernel_loader_fuzzer
  SOURCES kernel_loader_fuzzer.cc
  LINK skiff_firmware)

# Writes the corpus again: `kernel_loader_seeds tests/fuzz/corpus/kernel_loader_fuzzer`.
if(SKIFF_BUILD_FUZZERS AND TARGET skiff_kernel_images)
  add_executable(kernel_loader_seeds kernel_loader_seeds.cc)
  target_link_libraries(kernel_loader_seeds PRIVATE skiff_kernel_images)
endif()
