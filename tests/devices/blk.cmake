# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(blk_tests
  SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/virtio/blk/blk_integrity_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio/blk/blk_queue_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio/blk/virtio_blk_test.cc
  LINK skiff_virtio)
