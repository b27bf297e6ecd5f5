# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(placement_tests
  SOURCES
    placement/host_load_test.cc
    placement/host_topology_test.cc
    placement/iothread_plan_test.cc
    placement/mode_choice_test.cc
    placement/msi_target_test.cc
    placement/queue_placer_test.cc
    placement/steering_test.cc
  LINK skiff_placement)
skiff_test(disk_threads_tests SOURCES disk_threads_test.cc LINK skiff_machine)
