# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(vmm_kvm_tests
  SOURCES
    cpuid_test.cc
    doctor_test.cc
    kvm/boot_registers_test.cc
    kvm/kvm_statistics_test.cc
    kvm/kvm_system_test.cc
    machine_layout_test.cc
  LINK skiff_kvm)

# Guests of a few instructions on the real /dev/kvm, whatever kind it is; without one they fail.
skiff_test(kvm_payload_tests
  SOURCES
    kvm/interrupt_payload_test.cc
    kvm/payload_test_guest.cc
    kvm/vcpu_payload_test.cc
    kvm/vm_payload_test.cc
    vcpu_loop_io_payload_test.cc
    vcpu_loop_payload_test.cc
    vcpu_thread_payload_test.cc
  LINK skiff_kvm
  LABELS payload)
