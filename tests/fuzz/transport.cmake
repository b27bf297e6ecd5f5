# SPDX-License-Identifier: GPL-2.0-or-later
skiff_fuzzer(virtio_transport_fuzzer
  SOURCES virtio_transport_fuzzer.cc
  LINK skiff_virtio_transport)
