# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(virt_queue_test
  SOURCES
    virtio/virt_queue_race_test.cc
    virtio/virt_queue_test.cc
  LINK skiff_virtio)

# Counts every allocation of its process.
skiff_test(virt_queue_allocation_test
  SOURCES virtio/virt_queue_allocation_test.cc
  LINK skiff_virtio)
