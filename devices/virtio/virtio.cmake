# SPDX-License-Identifier: GPL-2.0-or-later
# Virtio devices and what they share. The transports are in transport.cmake.
skiff_library(skiff_virtio
  SOURCES
    virtio/blk/blk_command.cc
    virtio/blk/blk_metrics.cc
    virtio/blk/blk_queue.cc
    virtio/blk/blk_queue_control.cc
    virtio/blk/virtio_blk.cc
    virtio/console/console_control.cc
    virtio/console/console_port.cc
    virtio/console/fd_console_backend.cc
    virtio/console/virtio_console.cc
    virtio/inflight_log.cc
    virtio/queue_runner.cc
    virtio/queue_set.cc
    virtio/rng/virtio_rng.cc
    virtio/used_publisher.cc
    virtio/virt_queue.cc
  LINK skiff_chardev skiff_block)

# The driver's side of a virtqueue, for whoever tests or measures a device.
skiff_library(skiff_virtio_testing
  SOURCES testing/guest_driver.cc
  LINK skiff_virtio)
