// SPDX-License-Identifier: GPL-2.0-or-later
// What a file, on this kernel, really does: found out by trying, never guessed from its kind.
//
// Nothing here writes to the file, or changes it. Thread: any that may block; probe_engines() takes
// as long as some 300 reads. Ownership: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "loop/result.h"

namespace skiff::block {

// Does a read with RWF_NOWAIT say EAGAIN rather than block? Where it does not, io_uring can only
// serve the file with a kernel thread. Reads one byte, if that is in memory.
bool supports_nowait(int fd);

enum class Answer : uint8_t { kNo, kYes, kUnknown };

struct IoUringFinding {
  bool usable = false;
  std::string why_not;                   // And what to do about it.
  std::vector<std::string> missing_ops;  // Of those that the engine uses.
};
IoUringFinding probe_io_uring();
// What the refusal of io_uring_setup(2) means. `disabled` is sysctl kernel.io_uring_disabled, or -1
// where there is none.
std::string io_uring_refusal(int os_error, int disabled);

struct EngineFinding {
  IoEngineKind kind = IoEngineKind::kSync;
  bool usable = false;
  std::string why_not;
  int64_t p50_ns = 0;  // Of 32 reads of 4 KiB, one after the other.
  int64_t worst_ns = 0;
};

struct DiskFinding {
  std::string name;
  uint64_t size_bytes = 0;
  bool direct_io = false;
  uint32_t offset_alignment = 0;  // By STATX_DIOALIGN; 0: the file system does not say.
  uint32_t memory_alignment = 0;
  Answer nowait = Answer::kUnknown;
  Answer punts = Answer::kUnknown;  // io_uring needed a kernel thread for the reads.
  Answer discard = Answer::kUnknown;
  Answer write_zeroes = Answer::kUnknown;
  int64_t wake_ns = 0;  // From another thread's message to a sleeping loop to its callback.
  IoUringFinding io_uring;
  std::vector<EngineFinding> engines;
  std::string choice;  // What engine=auto begins with, and why.
};

// Tries each engine on `device`, with reads only. Discard and write-zeroes are tried on a nameless
// file in the same directory, if that may be written to.
loop::Result<DiskFinding> probe_engines(const IoDevice& device);

// From what was found: the engine to begin with, and the reason.
std::string explain_choice(const DiskFinding& finding);

}  // namespace skiff::block
