# SPDX-License-Identifier: GPL-2.0-or-later
# How every target of the project is compiled, and the four kinds of target there are.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)

add_library(skiff_options INTERFACE)
target_include_directories(skiff_options INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(skiff_options INTERFACE Threads::Threads)
target_compile_options(skiff_options INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Werror
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast -fno-exceptions>
  # Designated initialisers leave the other members at their defaults on purpose.
  -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Werror=thread-safety>)
if(SKIFF_SANITIZE)
  target_compile_options(skiff_options INTERFACE -fsanitize=${SKIFF_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(skiff_options INTERFACE -fsanitize=${SKIFF_SANITIZE})
endif()
if(SKIFF_COVERAGE)
  target_compile_options(skiff_options INTERFACE --coverage -O0)
  target_link_options(skiff_options INTERFACE --coverage)
endif()

# skiff_library(NAME SOURCES a.cc b.cc LINK skiff_loop PRIVATE_LINK fmt)
function(skiff_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC skiff_options ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
endfunction()

# skiff_test(NAME SOURCES a_test.cc LINK skiff_loop [LABELS guest])
# One GoogleTest program; ctest sees each of its cases.
function(skiff_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE skiff_options ${ARG_LINK} GTest::gmock GTest::gtest_main)
  target_precompile_headers(${name} PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
  # A time stamp in the precompiled header would keep ccache from ever finding anything again.
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
  if(NOT "guest" IN_LIST ARG_LABELS)
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 120 LABELS "${ARG_LABELS}")
  endif()
endfunction()

# All fuzzers, without the tests around them.
add_custom_target(fuzzers)

# skiff_fuzzer(NAME SOURCES a_fuzzer.cc LINK skiff_firmware)
# With SKIFF_BUILD_FUZZERS a libFuzzer program; otherwise not built. The seeds lie in tests/fuzz/corpus/NAME.
function(skiff_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(SKIFF_BUILD_FUZZERS)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE skiff_options ${ARG_LINK})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers ${name})
  endif()
endfunction()
