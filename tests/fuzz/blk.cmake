# SPDX-License-Identifier: GPL-2.0-or-later
skiff_fuzzer(virtio_blk_fuzzer
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/virtio_blk_fuzzer.cc
  LINK skiff_virtio)
