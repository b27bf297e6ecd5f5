// SPDX-License-Identifier: GPL-2.0-or-later
// What the tests of all engines share: an engine on a loop, on each kind of storage in turn.
//
// Thread: the test's.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {

enum class Storage : uint8_t { kTmpfs, kRegular, kDirect, kNull };
inline constexpr std::array kAllStorage = {Storage::kTmpfs, Storage::kRegular, Storage::kDirect,
                                           Storage::kNull};
inline constexpr std::array kFiles = {Storage::kTmpfs, Storage::kRegular, Storage::kDirect};
std::string_view storage_name(Storage storage);

struct EngineCase {
  const char* name;
  IoEngineKind kind;
  loop::EventLoop::Backend backend = loop::EventLoop::Backend::kEpoll;
  loop::EventLoop::TaskWork task_work = loop::EventLoop::TaskWork::kDeferred;
};
void PrintTo(const EngineCase& engine, std::ostream* out);

// A request and what became of it.
struct Probe {
  Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  void set(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov);

  IoRequest io;
  uint32_t completions = 0;
  int32_t result = 0;
  const bool* submitting = nullptr;
  bool inside_submit = false;
};

class IoEngineTest : public ::testing::TestWithParam<EngineCase> {
 protected:
  // Every device takes requests of this alignment.
  static constexpr size_t kBlock = 4096;

  IoEngineTest();
  void SetUp() override;
  void TearDown() override;

  // Whether this engine serves such storage at all.
  bool serves(Storage storage) const;
  // An engine on a new file of that kind. False, the refusal checked, when the engine does not
  // serve such storage.
  bool open(Storage storage, uint64_t size_bytes);
  bool open(Storage storage, std::span<const std::byte> content);
  // An engine on an open file.
  void serve(loop::UniqueFd fd, bool direct_io);
  // Without O_DIRECT, whatever the engine wants: not even that descriptor will do.
  void serve_anyway(loop::UniqueFd fd) {
    serve(std::move(fd), GetParam().kind == IoEngineKind::kLinuxAio);
  }
  std::vector<std::byte> content() const;
  const std::string& path() const { return path_; }

  void finish();
  int32_t run(Probe& probe);
  int32_t run(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov);
  int32_t run_range(IoOp op, uint64_t offset_bytes, uint64_t length_bytes);

  TempDir on_disk_;
  loop::UniqueFd fd_;
  std::unique_ptr<NullDevice> null_;
  // The pool goes before the loop: a worker may still be on its way out of post().
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<IoEngine> engine_;

 private:
  bool make(Storage storage, std::span<const std::byte> content, uint64_t size_bytes);

  TempDir in_memory_;
  std::string path_;
  uint32_t files_ = 0;
};

// Bytes that O_DIRECT can reach, filled with a pattern or zeroes.
class IoBuffer {
 public:
  explicit IoBuffer(size_t size_bytes) : memory_(size_bytes + 4096, 4096), size_bytes_(size_bytes) {
    std::ranges::fill(memory_.bytes(), std::byte{0});
  }
  explicit IoBuffer(std::span<const std::byte> content) : IoBuffer(content.size()) {
    std::ranges::copy(content, memory_.data());
  }
  std::span<std::byte> bytes() const { return memory_.bytes().first(size_bytes_); }
  iovec whole() const { return {memory_.data(), size_bytes_}; }
  iovec part(size_t at, size_t bytes) const { return {memory_.data() + at, bytes}; }

 private:
  AlignedBuffer memory_;
  size_t size_bytes_;
};

// The buffer in blocks of 4 KiB: requests under way together share none.
std::vector<iovec> blocks_of(const IoBuffer& buffer);

}  // namespace skiff::block
