# SPDX-License-Identifier: GPL-2.0-or-later
# The program that runs in the guest: static, small, without sanitizers; and the object that carries it inside Skiff.
add_executable(skiff_guest_init guest_init/guest_init.cc)
target_include_directories(skiff_guest_init PRIVATE ${CMAKE_SOURCE_DIR})
set_target_properties(skiff_guest_init PROPERTIES POSITION_INDEPENDENT_CODE OFF)
set_target_properties(skiff_guest_init PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
target_compile_options(skiff_guest_init PRIVATE -Os -Wall -Wextra -Wconversion -Wshadow
  -Wold-style-cast -Werror -fno-exceptions -fno-rtti -ffunction-sections)
target_link_options(skiff_guest_init PRIVATE -static -no-pie -Wl,--gc-sections -s)

set(init_program ${CMAKE_CURRENT_BINARY_DIR}/skiff_guest_init)
set_target_properties(skiff_guest_init PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})

set_source_files_properties(guest_init/program.S PROPERTIES
  COMPILE_DEFINITIONS SKIFF_GUEST_INIT="${init_program}"
  OBJECT_DEPENDS ${init_program})
skiff_library(skiff_guest_init_archive
  SOURCES
    guest_init/archive.cc
    guest_init/program.S
  LINK skiff_firmware)
add_dependencies(skiff_guest_init_archive skiff_guest_init)
