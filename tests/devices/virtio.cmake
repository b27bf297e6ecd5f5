# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(virt_queue_tests
  SOURCES
    virtio/inflight_log_test.cc
    virtio/virt_queue_race_test.cc
    virtio/virt_queue_test.cc
  LINK skiff_virtio_testing)

skiff_test(virtio_tests
  SOURCES
    virtio/console/fd_console_backend_test.cc
    virtio/console/virtio_console_test.cc
    virtio/queue_set_test.cc
    virtio/timing_budget_test.cc
    virtio/rng/virtio_rng_test.cc
  LINK skiff_virtio_testing)

# Counts every allocation of its process, by operators that the thread sanitizer has for itself.
if(NOT SKIFF_SANITIZE MATCHES "thread")
  skiff_test(virt_queue_allocation_tests
    SOURCES virtio/virt_queue_allocation_test.cc
    LINK skiff_virtio_testing)
endif()
