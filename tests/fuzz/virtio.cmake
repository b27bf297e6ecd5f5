# SPDX-License-Identifier: GPL-2.0-or-later
skiff_fuzzer(virt_queue_fuzzer SOURCES virt_queue_fuzzer.cc LINK skiff_virtio)
skiff_fuzzer(virtio_console_fuzzer SOURCES virtio_console_fuzzer.cc LINK skiff_virtio)
