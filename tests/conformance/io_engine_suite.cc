// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/conformance/io_engine_suite.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

constexpr const char* kTmpfsDirectory = "/dev/shm/";

}  // namespace

std::string_view storage_name(Storage storage) {
  switch (storage) {
    case Storage::kTmpfs:
      return "a tmpfs file";
    case Storage::kRegular:
      return "a regular file";
    case Storage::kDirect:
      return "an O_DIRECT file";
    case Storage::kNull:
      return "a null device";
  }
  return "";
}

void PrintTo(const EngineCase& engine, std::ostream* out) { *out << engine.name; }

Probe::Probe() {
  io.owner = this;
  io.done = [](IoRequest& request, int32_t outcome) {
    auto& probe = *static_cast<Probe*>(request.owner);
    ++probe.completions;
    probe.result = outcome;
    if (probe.submitting != nullptr) probe.inside_submit = *probe.submitting;
  };
}

void Probe::set(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov) {
  io.op = op;
  io.offset_bytes = offset_bytes;
  io.iov = iov;
  io.length_bytes = 0;
  for (const iovec& segment : iov) io.length_bytes += segment.iov_len;
}

IoEngineTest::IoEngineTest() : in_memory_(kTmpfsDirectory) {}

void IoEngineTest::SetUp() {
  auto pool = loop::WorkerPool::create({});
  ASSERT_TRUE(pool) << pool.error().message();
  pool_ = *std::move(pool);
  auto made =
      loop::EventLoop::create({.backend = GetParam().backend, .task_work = GetParam().task_work});
  if (!made) {
    // scripts/test sets it where nothing may be left out, and in the lab nothing is refused.
    EXPECT_EQ(std::getenv("SKIFF_ALL_ENGINES"), nullptr) << made.error().message();
    EXPECT_EQ(made.error().kind(), loop::ErrorKind::kUnsupported);
    GTEST_SKIP() << "REFUSED BY THIS KERNEL: " << made.error().message();
  }
  loop_ = *std::move(made);
}

void IoEngineTest::TearDown() {
  EXPECT_TRUE(engine_ == nullptr || engine_->in_flight() == 0);
  // By the loop's thread, and before the file.
  engine_.reset();
}

bool IoEngineTest::serves(Storage storage) const {
  const bool direct = storage == Storage::kDirect || storage == Storage::kNull;
  return GetParam().kind != IoEngineKind::kLinuxAio || direct;
}

bool IoEngineTest::open(Storage storage, uint64_t size_bytes) {
  return make(storage, {}, size_bytes);
}

bool IoEngineTest::open(Storage storage, std::span<const std::byte> content) {
  return make(storage, content, content.size());
}

bool IoEngineTest::make(Storage storage, std::span<const std::byte> content, uint64_t size_bytes) {
  engine_.reset();
  IoTarget target;
  if (storage == Storage::kNull) {
    null_ = std::make_unique<NullDevice>(NullDevice::Options{.size_bytes = size_bytes});
    target = null_->target();
  } else {
    const TempDir& directory = storage == Storage::kTmpfs ? in_memory_ : on_disk_;
    path_ = directory.make_file("file" + std::to_string(files_++), content);
    EXPECT_EQ(truncate(path_.c_str(), static_cast<off_t>(size_bytes)), 0);
    const int direct = storage == Storage::kDirect ? O_DIRECT : 0;
    fd_.reset(::open(path_.c_str(), O_RDWR | O_CLOEXEC | direct));
    EXPECT_TRUE(fd_) << "opening " << storage_name(storage) << " at " << path_;
    target = {.fd = fd_.get(), .direct_io = direct != 0};
  }
  auto engine = make_io_engine(GetParam().kind, target, *loop_, *pool_);
  if (serves(storage)) {
    EXPECT_TRUE(engine) << engine.error().message();
    if (!engine) return false;
    engine_ = *std::move(engine);
    return true;
  }
  EXPECT_FALSE(engine);
  EXPECT_EQ(engine.error().kind(), loop::ErrorKind::kUnsupported);
  EXPECT_NE(engine.error().message().find("direct=on"), std::string::npos);
  return false;
}

void IoEngineTest::serve(loop::UniqueFd fd, bool direct_io) {
  engine_.reset();
  fd_ = std::move(fd);
  auto engine =
      make_io_engine(GetParam().kind, {.fd = fd_.get(), .direct_io = direct_io}, *loop_, *pool_);
  ASSERT_TRUE(engine) << engine.error().message();
  engine_ = *std::move(engine);
}

std::vector<std::byte> IoEngineTest::content() const {
  const loop::UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat facts = {};
  EXPECT_EQ(fstat(fd.get(), &facts), 0);
  std::vector<std::byte> bytes(static_cast<size_t>(facts.st_size));
  EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  return bytes;
}

void IoEngineTest::finish() {
  while (engine_->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
}

int32_t IoEngineTest::run(Probe& probe) {
  IoRequest* one = &probe.io;
  probe.completions = 0;
  engine_->submit({&one, 1});
  finish();
  EXPECT_EQ(probe.completions, 1u);
  return probe.result;
}

int32_t IoEngineTest::run(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov) {
  Probe probe;
  probe.set(op, offset_bytes, iov);
  return run(probe);
}

int32_t IoEngineTest::run_range(IoOp op, uint64_t offset_bytes, uint64_t length_bytes) {
  Probe probe;
  probe.set(op, offset_bytes, {});
  probe.io.length_bytes = length_bytes;
  return run(probe);
}

std::vector<iovec> blocks_of(const IoBuffer& buffer) {
  constexpr size_t kBytes = 4096;
  std::vector<iovec> blocks;
  for (size_t at = 0; at < buffer.bytes().size(); at += kBytes)
    blocks.push_back(buffer.part(at, kBytes));
  return blocks;
}

}  // namespace skiff::block
