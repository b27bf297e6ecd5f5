# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(storage_tests
  SOURCES
    ../block/nbd/server_process.cc
    storage/storage_options_test.cc
    storage/storage_process_test.cc
  LINK skiff_storage skiff_virtio_testing)
# It runs as a process of its own.
add_dependencies(storage_tests skiff)
