# SPDX-License-Identifier: GPL-2.0-or-later
# skiff bench and skiff doctor --disk.
include(bench/guest/guest.cmake)
skiff_library(skiff_bench
  SOURCES
    bench/bench_output.cc
    bench/bench_report.cc
    bench/bench_result.cc
    bench/bench_words.cc
    bench/cdf_plot.cc
    bench/disk_bench.cc
    bench/disk_bench_options.cc
    bench/disk_job.cc
    bench/disk_turn.cc
    bench/guest/bench_payload.cc
    bench/guest/guest_bench.cc
    bench/guest/guest_command.cc
    bench/guest/guest_options.cc
    bench/guest/guest_process.cc
    bench/guest/guest_report.cc
    bench/guest/guest_result.cc
    bench/guest/payload_file.S
    bench/guest/run_guest_bench.cc
    bench/histogram_text.cc
    bench/overwrite_guard.cc
    bench/queues_bench.cc
    bench/queues_device_target.cc
    bench/queues_driver.cc
    bench/queues_options.cc
    bench/queues_report.cc
    bench/queues_vhost_target.cc
    bench/request_source.cc
    bench/resource_usage.cc
    bench/run_disk_bench.cc
    bench/run_queues_bench.cc
    bench/thread_usage.cc
    bench/tsc_rate.cc
    doctor_disk.cc
  LINK skiff_services skiff_block skiff_virtio skiff_vhost_user)
add_dependencies(skiff_bench skiff_bench_payload)
