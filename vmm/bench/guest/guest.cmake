# SPDX-License-Identifier: GPL-2.0-or-later
# The payload guest of `skiff bench guest`: freestanding, for CPL 3 of a machine of its own, whatever the rest of the
# tree is built with; and the object that carries it inside Skiff.
set(payload_dir ${CMAKE_CURRENT_SOURCE_DIR}/bench/guest/payload)
add_executable(skiff_bench_payload
  ${payload_dir}/main.cc
  ${payload_dir}/mmio_disk.cc
  ${payload_dir}/parameters.cc
  ${payload_dir}/pci_disk.cc
  ${payload_dir}/processors.cc
  ${payload_dir}/runtime.cc
  ${payload_dir}/start.S)
target_include_directories(skiff_bench_payload PRIVATE ${CMAKE_SOURCE_DIR})
set_target_properties(skiff_bench_payload PROPERTIES
  POSITION_INDEPENDENT_CODE OFF
  INTERPROCEDURAL_OPTIMIZATION OFF
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}
  LINK_DEPENDS ${payload_dir}/payload.ld)
# No floating point: nobody has prepared the processor for it; clang takes the library's headers with an FPU to speak of
# only, so it is told less. No builtin calls made of our own memcpy's loops.
target_compile_options(skiff_bench_payload PRIVATE $<$<COMPILE_LANGUAGE:CXX>:
  -O2 -ffreestanding -fno-pic -fno-pie -mno-red-zone -fno-stack-protector -fno-exceptions -fno-rtti
  -fno-asynchronous-unwind-tables -fno-threadsafe-statics -Wall -Wextra -Wconversion -Wshadow -Wold-style-cast -Werror
  -Wno-missing-field-initializers
  $<IF:$<CXX_COMPILER_ID:GNU>,-mgeneral-regs-only,-mno-sse$<SEMICOLON>-mno-mmx>>)
target_link_options(skiff_bench_payload PRIVATE -nostdlib -static -no-pie -s -Wl,-T,${payload_dir}/payload.ld
  -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments)

set(payload_program ${CMAKE_CURRENT_BINARY_DIR}/skiff_bench_payload)
set_source_files_properties(bench/guest/payload_file.S PROPERTIES
  COMPILE_DEFINITIONS SKIFF_BENCH_PAYLOAD="${payload_program}"
  OBJECT_DEPENDS ${payload_program})
