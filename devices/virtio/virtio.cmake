# SPDX-License-Identifier: GPL-2.0-or-later
# Virtio devices and what they share. The transports are in platform.cmake.
skiff_library(skiff_virtio
  SOURCES
    testing/guest_driver.cc
    virtio/queue_runner.cc
    virtio/queue_set.cc
    virtio/virt_queue.cc
  LINK skiff_devices_core)
