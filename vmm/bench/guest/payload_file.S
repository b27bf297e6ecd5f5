/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The payload guest, an ELF file, between two labels. */
  .section .rodata
  .balign 16
  .global skiff_bench_payload_begin
  .global skiff_bench_payload_end
skiff_bench_payload_begin:
  .incbin SKIFF_BENCH_PAYLOAD
skiff_bench_payload_end:
  .section .note.GNU-stack, "", @progbits
