# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(pci_tests
  SOURCES
    pci/msix_test.cc
    pci/pci_bus_test.cc
    pci/pci_device_test.cc
    pci/pci_hotplug_test.cc
    pci/pci_removal_test.cc
  LINK skiff_pci)
