# SPDX-License-Identifier: GPL-2.0-or-later
# The PCI bus and what all PCI devices share.
skiff_library(skiff_pci
  SOURCES
    pci/msix.cc
    pci/pci_bus.cc
    pci/pci_config_space.cc
    pci/pci_device.cc
    pci/pci_hotplug.cc
  LINK skiff_devices_core)
