// SPDX-License-Identifier: GPL-2.0-or-later
// ReadJob: one read of 4 KiB after the other through an engine, at random places; and the file for
// it.
//
// Thread: the engine's loop. Ownership: borrows the engine and the flag that stops it.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "block/aligned_buffer.h"
#include "block/file_device.h"
#include "block/io_device.h"
#include "block/io_engine.h"

namespace skiff::block::perf {

// Ends the benchmark with a message.
[[noreturn]] void die(const std::string& message);

struct ReadJob {
  ReadJob(IoEngine& its_engine, uint64_t seed);
  void next();

  IoEngine& engine;
  std::minstd_rand random;
  AlignedBuffer buffer;
  iovec iov = {};
  IoRequest io;
  const bool* stop = nullptr;
  uint64_t completed = 0;
};

// A file of the size that jobs read, written and without a name, in this directory.
std::unique_ptr<IoDevice> open_file(const std::string& dir, DirectIo direct);

}  // namespace skiff::block::perf
