# SPDX-License-Identifier: GPL-2.0-or-later
# How a driver reaches a virtio device: over PCI, or memory-mapped.
skiff_library(skiff_virtio_transport
  SOURCES
    virtio/transport/queue_doorbells.cc
    virtio/transport/virtio_mmio.cc
    virtio/transport/virtio_pci.cc
    virtio/transport/virtio_registers.cc
  LINK skiff_devices_core skiff_pci)
