/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of the payload guest runs in CPL 0: from the PVH entry (Xen docs/misc/pvh.pandoc) to CPL 3,
 * the other processors' way there, and interrupts. On kvm_pvm each of these instructions is
 * emulated, at half a microsecond; everything else runs in CPL 3, at full speed everywhere.
 */
#include "vmm/bench/guest/payload/machine_abi.h"

#define PAGE_PRESENT_USER 0x67 /* Present, writable, user, accessed, dirty. */
#define PAGE_LARGE 0x80

  .section .note.pvh, "a", @note
  .balign 4
  .long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
  .asciz "Xen"
  .long pvh_entry

/* The first 4 GiB, one to one, all of it CPL 3's. */
  .section .data
  .balign 4096
pml4:
  .quad page_directory_pointers + PAGE_PRESENT_USER
  .fill 511, 8, 0
page_directory_pointers:
  .quad page_directories + 0x0000 + PAGE_PRESENT_USER
  .quad page_directories + 0x1000 + PAGE_PRESENT_USER
  .quad page_directories + 0x2000 + PAGE_PRESENT_USER
  .quad page_directories + 0x3000 + PAGE_PRESENT_USER
  .fill 508, 8, 0
page_directories:
  .set page, 0
  .rept 2048
  .quad page + PAGE_PRESENT_USER + PAGE_LARGE
  .set page, page + 0x200000
  .endr

/* Intel SDM vol. 3A, 3.4.5. Each processor's TSS follows, 16 bytes each. */
  .balign 16
  .global payload_gdt
payload_gdt:
  .quad 0
  .quad 0x00cf9b000000ffff /* 0x08: code, 32 bits. */
  .quad 0x00af9b000000ffff /* 0x10: code, 64 bits. */
  .quad 0x00cf93000000ffff /* 0x18: data. */
  .quad 0x00cff3000000ffff /* 0x20: data of CPL 3. */
  .quad 0x00affb000000ffff /* 0x28: code of CPL 3. */
  .skip PAYLOAD_CPUS_MAX * 16
gdt_end:
gdt_register:
  .word gdt_end - payload_gdt - 1
  .quad payload_gdt
idt_register:
  .word 256 * 16 - 1
  .quad payload_idt

  .section .bss
  .balign 4096
  .global payload_idt
payload_idt:
  .skip 256 * 16
/* One page a processor: the stack of CPL 0. At its beginning how many interrupts there were. */
  .global payload_interrupt_stacks
payload_interrupt_stacks:
  .skip PAYLOAD_CPUS_MAX * PAYLOAD_INTERRUPT_STACK_BYTES
payload_user_stacks:
  .skip PAYLOAD_CPUS_MAX * PAYLOAD_USER_STACK_BYTES
/* A TSS for each processor, and behind them the I/O permission bitmap that all of them share. */
  .balign 16
  .global payload_tss
payload_tss:
  .skip PAYLOAD_CPUS_MAX * PAYLOAD_TSS_STRIDE
payload_io_bitmap:
  .skip PAYLOAD_IO_BITMAP_BYTES + 1
  .balign 4
  .global payload_start_info
payload_start_info:
  .skip 4
  .global payload_other_cpus
payload_other_cpus:
  .skip 4

/* To long mode, from flat 32-bit code. Takes eax. */
.macro ENTER_LONG_MODE target
  movl $pml4, %eax
  movl %eax, %cr3
  movl %cr4, %eax
  orl $0x20, %eax /* PAE. */
  movl %eax, %cr4
  movl $0xc0000080, %ecx /* EFER. */
  rdmsr
  orl $0x100, %eax /* LME. */
  wrmsr
  movl %cr0, %eax
  orl $0x80000001, %eax /* PG, PE. */
  movl %eax, %cr0
  ljmp $0x10, $\target
.endm

/* To `target` in CPL 3 with interrupts, processor number in edi. */
.macro ENTER_USER target
  movl %edi, %eax
  incl %eax
  imull $PAYLOAD_USER_STACK_BYTES, %eax, %eax
  addl $payload_user_stacks - 8, %eax
  pushq $0x23
  pushq %rax
  pushq $0x202
  pushq $0x2b
  pushq $\target
  iretq
.endm

  .section .text
  .code32
  .global pvh_entry
pvh_entry:
  cli
  movl %ebx, payload_start_info
  /* Its TSS: base and limit into the descriptor, stack and bitmap into the TSS. */
  movl $payload_tss, %eax
  movl $payload_gdt + 0x30, %edx
  movw $PAYLOAD_CPUS_MAX * PAYLOAD_TSS_STRIDE + PAYLOAD_IO_BITMAP_BYTES, (%edx)
  movw %ax, 2(%edx)
  shrl $16, %eax
  movb %al, 4(%edx)
  movb $0x89, 5(%edx)
  movb %ah, 7(%edx)
  movl $payload_interrupt_stacks + PAYLOAD_INTERRUPT_STACK_BYTES, payload_tss + 4
  movw $PAYLOAD_CPUS_MAX * PAYLOAD_TSS_STRIDE, payload_tss + 0x66
  movb $0xff, payload_io_bitmap + PAYLOAD_IO_BITMAP_BYTES
  lgdt gdt_register
  ENTER_LONG_MODE boot_long

  .code64
boot_long:
  movl $0x18, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl $payload_interrupt_stacks + PAYLOAD_INTERRUPT_STACK_BYTES, %esp
  lidt idt_register
  movl $0x30, %eax
  ltr %ax
  xorl %edi, %edi
  ENTER_USER payload_main

/* Copied to PAYLOAD_TRAMPOLINE, where the other processors start in real mode. */
  .code16
  .global payload_trampoline
  .global payload_trampoline_end
payload_trampoline:
  cli
  movw %cs, %ax
  movw %ax, %ds
  lgdtl trampoline_gdt - payload_trampoline
  movl %cr0, %eax
  orl $1, %eax
  movl %eax, %cr0
  ljmpl $0x08, $other_protected
  .balign 4
trampoline_gdt:
  .word gdt_end - payload_gdt - 1
  .long payload_gdt
payload_trampoline_end:

  .code32
other_protected:
  movl $0x18, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  ENTER_LONG_MODE other_long

  .code64
other_long:
  movl $1, %edi
  lock xaddl %edi, payload_other_cpus
  incl %edi
  cmpl $PAYLOAD_CPUS_MAX, %edi
  jae park
  movl %edi, %eax
  incl %eax
  shll $12, %eax
  addl $payload_interrupt_stacks, %eax
  movl %eax, %esp
  lidt idt_register
  movl %edi, %eax
  shll $4, %eax
  addl $0x30, %eax
  ltr %ax
  ENTER_USER payload_other_main

park:
  cli
  hlt
  jmp park

/* An MSI, or this processor's timer: counts it. */
  .global payload_interrupt
payload_interrupt:
  pushq %rax
  movq %rsp, %rax
  andq $-PAYLOAD_INTERRUPT_STACK_BYTES, %rax
  incq (%rax)
  movl $0xfee000b0, %eax /* End of interrupt. */
  movl $0, (%rax)
  popq %rax
  iretq

/* The line of a virtio-mmio device: acknowledged there first, or it would come again. */
  .global payload_line_interrupt
  .global payload_line_device
payload_line_interrupt:
  pushq %rax
  pushq %rcx
  movl payload_line_device, %eax
  movl 0x60(%rax), %ecx
  movl %ecx, 0x64(%rax)
  movq %rsp, %rax
  andq $-PAYLOAD_INTERRUPT_STACK_BYTES, %rax
  incq (%rax)
  movl $0xfee000b0, %eax
  movl $0, (%rax)
  popq %rcx
  popq %rax
  iretq

/*
 * ud2 with eax = PAYLOAD_CALL_WAIT: halts until another number of interrupts than rdi was counted.
 * With PAYLOAD_CALL_PARK: for ever. kvm_pvm turns `int` in CPL 3 into this exception as well, so
 * that it may as well be the system call.
 */
  .global payload_undefined
payload_undefined:
  cmpl $PAYLOAD_CALL_WAIT, %eax
  jne 2f
  addq $2, (%rsp)
  movq %rsp, %rax
  andq $-PAYLOAD_INTERRUPT_STACK_BYTES, %rax
  cmpq %rdi, (%rax)
  jne 1f
  sti /* Takes effect behind the next instruction: no interrupt comes between. */
  hlt
1:
  iretq
2:
  cmpl $PAYLOAD_CALL_PARK, %eax
  je park
  jmp payload_exceptions + 6 * 16

/* Exceptions: vector, error code and address go to payload_fault() in CPL 3. */
  .balign 16
  .global payload_exceptions
payload_exceptions:
  .set vector, 0
  .rept 32
  .balign 16
  .if ((1 << vector) & 0x60227d00) == 0 /* Those without an error code. */
  pushq $0
  .endif
  pushq $vector
  jmp exception
  .set vector, vector + 1
  .endr
exception:
  popq %rdi
  popq %rsi
  movq (%rsp), %rdx
  movq %cr2, %rcx
  movq $payload_fault, (%rsp)
  movq $0x2b, 8(%rsp)
  movq $0x202, 16(%rsp)
  movq $payload_user_stacks + PAYLOAD_USER_STACK_BYTES - 8, 24(%rsp)
  movq $0x23, 32(%rsp)
  iretq

  .section .data
payload_line_device:
  .long 0
  .section .note.GNU-stack, "", @progbits
