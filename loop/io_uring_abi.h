// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's io_uring interface, with what is newer than the oldest headers we build with (6.1).
//
// Thread: any. Source: include/uapi/linux/io_uring.h of Linux; every newer flag is tried and
// dropped when the running kernel refuses it.
#pragma once

#include <liburing.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)  // Linux 6.6
#endif
