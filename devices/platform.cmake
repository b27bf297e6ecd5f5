# SPDX-License-Identifier: GPL-2.0-or-later
# What the host puts at the other end of a serial line: a terminal, a file, a socket.
skiff_library(skiff_chardev
  SOURCES
    chardev/char_options.cc
    chardev/char_port.cc
    chardev/fd_stream.cc
    chardev/host_fd.cc
    chardev/peer_backend.cc
    chardev/pty_backend.cc
    chardev/raw_terminal.cc
    chardev/socket_backend.cc
    chardev/stream_backend.cc
  LINK skiff_devices_core)

# The devices of the board: what an ISA machine has besides its buses.
skiff_library(skiff_platform
  SOURCES
    acpi/acpi_pm.cc
    acpi/reset_port.cc
    debug/debug_ports.cc
    i8042/i8042.cc
    rtc/cmos_rtc.cc
    serial/uart16550.cc
  LINK skiff_chardev)
