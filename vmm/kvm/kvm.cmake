# SPDX-License-Identifier: GPL-2.0-or-later
# The machine's KVM side: everything that talks to /dev/kvm, and what decides what a vCPU is.
skiff_library(skiff_kvm
  SOURCES
    cpuid.cc
    cpuid_features.cc
    doctor.cc
    kvm/boot_registers.cc
    kvm/kvm_statistics.cc
    kvm/kvm_system.cc
    kvm/late_release.cc
    kvm/msi_router.cc
    kvm/payload_guest.cc
    kvm/vcpu.cc
    kvm/vcpu_report.cc
    kvm/vm.cc
    memory_slots.cc
    vcpu_alarm.cc
    vcpu_thread.cc
  LINK skiff_devices_core skiff_loop)
