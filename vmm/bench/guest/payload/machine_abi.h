// SPDX-License-Identifier: GPL-2.0-or-later
// What the assembler and the C++ side of the payload guest agree on; macros, since both read it.
//
// Thread: any; constants.
#pragma once

#define PAYLOAD_CPUS_MAX 64
#define PAYLOAD_INTERRUPT_STACK_BYTES 4096
#define PAYLOAD_USER_STACK_BYTES 16384
#define PAYLOAD_TSS_STRIDE 112
#define PAYLOAD_IO_BITMAP_BYTES 8192
#define PAYLOAD_TRAMPOLINE 0x8000
#define PAYLOAD_VECTOR_INTERRUPT 0x40
#define PAYLOAD_VECTOR_LINE 0x41
#define PAYLOAD_CALL_WAIT 0x74696177
#define PAYLOAD_CALL_PARK 0x6b726170
