# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(virtio_transport_tests
  SOURCES
    virtio/transport/virtio_mmio_test.cc
    virtio/transport/virtio_pci_test.cc
    virtio/transport/virtio_registers_test.cc
  LINK skiff_virtio_transport)
