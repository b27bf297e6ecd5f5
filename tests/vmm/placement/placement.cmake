# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(placement_tests
  SOURCES
    placement/host_load_test.cc
    placement/host_topology_test.cc
    placement/iothread_plan_test.cc
    placement/msi_target_test.cc
    placement/steering_test.cc
  LINK skiff_placement)
