# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(platform_tests
  SOURCES
    acpi/acpi_pm_test.cc
    acpi/reset_port_test.cc
    chardev/char_backends_test.cc
    chardev/char_options_test.cc
    chardev/char_port_test.cc
    debug/debug_ports_test.cc
    i8042/i8042_test.cc
    rtc/cmos_rtc_test.cc
    serial/uart16550_test.cc
  LINK skiff_platform)
