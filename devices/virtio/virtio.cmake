# SPDX-License-Identifier: GPL-2.0-or-later
# Virtio devices and what they share. The transports are in platform.cmake.
skiff_library(skiff_virtio
  SOURCES
    testing/guest_driver.cc
    virtio/blk/blk_command.cc
    virtio/blk/blk_queue.cc
    virtio/blk/virtio_blk.cc
    virtio/console/console_control.cc
    virtio/console/console_port.cc
    virtio/console/fd_console_backend.cc
    virtio/console/virtio_console.cc
    virtio/queue_runner.cc
    virtio/queue_set.cc
    virtio/rng/virtio_rng.cc
    virtio/virt_queue.cc
  LINK skiff_devices_core skiff_block)
