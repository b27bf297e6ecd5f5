/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's init, as built, between two labels. */
  .section .rodata
  .balign 16
  .global skiff_guest_init_begin
  .global skiff_guest_init_end
skiff_guest_init_begin:
  .incbin SKIFF_GUEST_INIT
skiff_guest_init_end:
  .section .note.GNU-stack, "", @progbits
