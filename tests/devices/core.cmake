# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(devices_core_tests
  SOURCES
    core/bus_test.cc
    core/guest_memory_test.cc
  LINK skiff_devices_core)
