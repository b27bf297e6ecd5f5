# SPDX-License-Identifier: GPL-2.0-or-later
find_package(nlohmann_json REQUIRED)

skiff_test(vmm_bench_tests
  SOURCES
    bench/bench_report_test.cc
    bench/disk_bench_options_test.cc
    bench/disk_job_test.cc
    bench/driver_test.cc
    bench/guest_options_test.cc
    bench/guest_result_test.cc
    bench/histogram_text_test.cc
    bench/overwrite_guard_test.cc
    bench/queues_bench_test.cc
    bench/request_source_test.cc
    bench/statistics_test.cc
    bench/thread_usage_test.cc
  LINK skiff_bench skiff_statistics skiff_virtio_testing)

# Runs the program itself: no guest, no /dev/kvm.
skiff_test(disk_bench_end_to_end_tests
  SOURCES
    bench/disk_bench_end_to_end_test.cc
  LINK skiff_bench skiff_guest_testing)
add_dependencies(disk_bench_end_to_end_tests skiff)
