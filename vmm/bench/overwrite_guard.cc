// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/overwrite_guard.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "block/block_channel.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

using block::BlockOp;
using block::BlockRequest;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr const char* kAdvice = "writing would destroy it; say --overwrite if that may happen";

}  // namespace

Error overwrite_refusal(const std::string& name, StatusWalk::Finding finding) {
  if (finding == StatusWalk::Finding::kData)
    return Error(ErrorKind::kInvalidArgument, fmt::format("{} holds data: {}", name, kAdvice));
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("{} may hold data, there is no telling: {}", name, kAdvice));
}

Result<void> may_overwrite_file(const std::string& path, uint64_t size_bytes) {
  struct stat facts = {};
  if (::stat(path.c_str(), &facts) != 0)
    return Error::from_errno(errno, fmt::format("Opening disk {}", path));
  if (S_ISBLK(facts.st_mode)) return overwrite_refusal(path, StatusWalk::Finding::kUnknown);
  // Anything else that is no regular file is refused, in better words, when it is opened.
  if (!S_ISREG(facts.st_mode)) return {};
  const loop::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error::from_errno(errno, fmt::format("Opening disk {}", path));
  const off_t data = ::lseek(fd.get(), 0, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return {};  // Nothing but holes.
  if (data >= 0 && size_bytes != 0 && static_cast<uint64_t>(data) >= size_bytes) return {};
  const bool known = data >= 0;
  return overwrite_refusal(path,
                           known ? StatusWalk::Finding::kData : StatusWalk::Finding::kUnknown);
}

bool has_holes(const std::string& path, uint64_t size_bytes) {
  const loop::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat facts = {};
  if (!fd || ::fstat(fd.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
  const off_t hole = ::lseek(fd.get(), 0, SEEK_HOLE);
  // There is always one at the end.
  const auto file_bytes = static_cast<uint64_t>(facts.st_size);
  const uint64_t end = size_bytes == 0 ? file_bytes : std::min(size_bytes, file_bytes);
  return hole >= 0 && static_cast<uint64_t>(hole) < end;
}

StatusWalk::StatusWalk(block::BlockChannel& channel, uint64_t size_bytes,
                       std::function<void(Finding)> on_end)
    : channel_(channel), size_bytes_(size_bytes), on_end_(std::move(on_end)) {
  request_.op = BlockOp::kStatus;
  request_.done = &StatusWalk::on_done;
  request_.owner = this;
}

void StatusWalk::ask() {
  request_.offset_bytes = offset_bytes_;
  request_.length_bytes = std::min(size_bytes_ - offset_bytes_, block::kMaxTransferBytes);
  BlockRequest* one = &request_;
  channel_.submit({&one, 1});
}

void StatusWalk::on_done(BlockRequest& request, int32_t result) {
  auto& self = *static_cast<StatusWalk*>(request.owner);
  // An answer that leads nowhere is none.
  if (result < 0 || request.status.length_bytes == 0) return self.on_end_(Finding::kUnknown);
  if (!request.status.reads_as_zeroes) return self.on_end_(Finding::kData);
  self.offset_bytes_ += std::min(request.status.length_bytes, request.length_bytes);
  if (self.offset_bytes_ >= self.size_bytes_) return self.on_end_(Finding::kEmpty);
  self.ask();
}

}  // namespace skiff::vmm
