// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/scratch_files.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/random.h"

namespace skiff::vmm {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

namespace {

constexpr size_t kPartBytes = size_t{1} << 20;

}  // namespace

Result<std::unique_ptr<ScratchFiles>> ScratchFiles::create(
    const std::vector<ExperimentFile>& files, const std::map<std::string, std::string>& given,
    const std::function<bool()>& go_on) {
  std::unique_ptr<ScratchFiles> scratch(new ScratchFiles);
  for (const auto& [name, path] : given) {
    if (std::ranges::find(files, name, &ExperimentFile::name) == files.end())
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("--file {}={}: the experiment has no such file", name, path));
    scratch->paths_[name] = path;
  }
  for (const ExperimentFile& file : files)
    if (!given.contains(file.name)) SKIFF_RETURN_IF_ERROR(scratch->make(file, go_on));
  return scratch;
}

ScratchFiles::~ScratchFiles() {
  for (const std::string& path : own_) ::unlink(path.c_str());
}

Result<void> ScratchFiles::make(const ExperimentFile& file, const std::function<bool()>& go_on) {
  std::string path = fmt::format("{}/skiff-experiment-{}-XXXXXX", file.directory, file.name);
  const loop::UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd)
    return Error::from_errno(errno,
                             fmt::format("Making file \"{}\" in {}", file.name, file.directory));
  own_.push_back(path);
  paths_[file.name] = path;
  std::vector<uint64_t> part(kPartBytes / sizeof(uint64_t));
  Random random(file.size_bytes);
  for (uint64_t left = file.size_bytes; left > 0;) {
    if (!go_on()) return Error(ErrorKind::kCancelled, "Stopped while files were made");
    for (uint64_t& word : part) word = random.next();
    const ssize_t wrote = ::write(fd.get(), part.data(), std::min<uint64_t>(left, kPartBytes));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return Error::from_errno(wrote < 0 ? errno : ENOSPC, "Writing " + path);
    left -= static_cast<uint64_t>(wrote);
  }
  // What is measured later is not the writing back of this.
  if (::fsync(fd.get()) != 0) return Error::from_errno(errno, "Writing " + path);
  return {};
}

}  // namespace skiff::vmm
