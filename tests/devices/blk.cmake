# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(blk_tests
  SOURCES
    virtio/blk/blk_drain_test.cc
    virtio/blk/blk_error_policy_test.cc
    virtio/blk/blk_integrity_test.cc
    virtio/blk/blk_move_test.cc
    virtio/blk/blk_poll_test.cc
    virtio/blk/blk_queue_test.cc
    virtio/blk/blk_queues_test.cc
    virtio/blk/virtio_blk_test.cc
  LINK skiff_virtio_testing)

# Counts every allocation and lock of the process, by operators that the thread sanitizer has for itself.
if(NOT SKIFF_SANITIZE MATCHES "thread")
  skiff_test(blk_path_count_tests
    SOURCES virtio/blk/blk_path_count_test.cc ../path_counters.cc
    LINK skiff_virtio_testing)
endif()
