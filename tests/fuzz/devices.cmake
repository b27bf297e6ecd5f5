# SPDX-License-Identifier: GPL-2.0-or-later
skiff_fuzzer(platform_devices_fuzzer
  SOURCES platform_devices_fuzzer.cc
  LINK skiff_platform)
