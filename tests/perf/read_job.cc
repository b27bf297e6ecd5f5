// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/perf/read_job.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/unique_fd.h"

namespace skiff::block::perf {
namespace {

constexpr uint64_t kFileBytes = 64ULL << 20;
constexpr uint64_t kRequestBytes = 4096;

}  // namespace

void die(const std::string& message) {
  std::fprintf(stderr, "benchmark: %s\n", message.c_str());
  std::exit(1);
}

ReadJob::ReadJob(IoEngine& its_engine, uint64_t seed)
    : engine(its_engine), random(seed), buffer(kRequestBytes, 4096) {
  iov = {buffer.data(), buffer.size_bytes()};
  io.op = IoOp::kRead;
  io.length_bytes = kRequestBytes;
  io.iov = {&iov, 1};
  io.owner = this;
  io.done = [](IoRequest& request, int32_t result) {
    if (result != static_cast<int32_t>(kRequestBytes)) die("a read gave " + std::to_string(result));
    auto& self = *static_cast<ReadJob*>(request.owner);
    ++self.completed;
    if (!*self.stop) self.next();
  };
}

void ReadJob::next() {
  io.offset_bytes = random() % (kFileBytes / kRequestBytes) * kRequestBytes;
  IoRequest* one = &io;
  engine.submit({&one, 1});
}

std::unique_ptr<IoDevice> open_file(const std::string& dir, DirectIo direct) {
  std::string path = dir + "/skiff-bench-XXXXXX";
  const loop::UniqueFd fd(mkstemp(path.data()));
  if (!fd) die("cannot make a file in " + dir);
  const std::vector<char> megabyte(1 << 20, 'x');
  for (uint64_t done = 0; done < kFileBytes; done += megabyte.size()) {
    if (::write(fd.get(), megabyte.data(), megabyte.size()) < 0) die("cannot write to " + path);
  }
  if (fsync(fd.get()) != 0) die("cannot sync " + path);
  auto device = FileDevice::open({.path = path, .direct = direct});
  unlink(path.c_str());
  if (!device) die(device.error().message());
  return *std::move(device);
}

}  // namespace skiff::block::perf
