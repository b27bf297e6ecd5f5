# SPDX-License-Identifier: GPL-2.0-or-later
# Which thread serves which queue: decisions over values, no guest needed to test them.
skiff_library(skiff_placement
  SOURCES
    placement/host_load.cc
    placement/host_topology.cc
    placement/iothread_plan.cc
    placement/iothread_probe.cc
    placement/mode_choice.cc
    placement/msi_target.cc
    placement/queue_placer.cc
    placement/steering.cc
    placement/wake_probe.cc
  LINK skiff_services skiff_virtio)
