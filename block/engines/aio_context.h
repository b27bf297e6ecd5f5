// SPDX-License-Identifier: GPL-2.0-or-later
// AioContext: one io_setup(2) context, with its completions read from the ring that the kernel maps
// into the process, so that taking them costs no system call.
//
// Thread: one. Ownership: owns the context; what is in flight when it goes is waited for.
// Source: linux/aio_abi.h; struct aio_ring in fs/aio.c of Linux, which user space (libaio, fio)
// has read since 2.6, guarded by its magic number.
#pragma once

#include <linux/aio_abi.h>

#include <cstdint>
#include <span>

#include "loop/result.h"

namespace skiff::block {

class AioContext {
 public:
  // Room for `depth` requests in the kernel. kExhausted, naming fs.aio-max-nr, when the system's
  // are used up; kUnsupported when the kernel has no aio.
  static loop::Result<AioContext> create(uint32_t depth);
  AioContext(AioContext&& other) noexcept;
  AioContext& operator=(AioContext&&) = delete;
  AioContext(const AioContext&) = delete;
  AioContext& operator=(const AioContext&) = delete;
  ~AioContext();

  // How many of them, from the front, the kernel took; or -errno of the first.
  int32_t submit(std::span<iocb* const> batch) const;
  // Fills `events` with what has ended, without waiting; how many that were.
  uint32_t take(std::span<io_event> events) const;

 private:
  struct Ring;
  explicit AioContext(aio_context_t context) : context_(context) {}

  aio_context_t context_ = 0;
};

}  // namespace skiff::block
