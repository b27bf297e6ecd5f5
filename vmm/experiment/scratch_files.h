// SPDX-License-Identifier: GPL-2.0-or-later
// ScratchFiles: the files that an experiment measures, made before and removed after.
//
// Written in full with bytes that do not compress: reads of what was never written do not reach a
// disk. Thread: any; create() blocks. Ownership: owns the files.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "loop/result.h"
#include "vmm/experiment/experiment_plan.h"

namespace skiff::vmm {

class ScratchFiles {
 public:
  // Those that `given` has a path for are taken from there, and left alone at the end. `go_on` is
  // asked now and then. kCancelled when it says no; kInvalidArgument, kExhausted or kIo when a file
  // cannot be made, naming it.
  static loop::Result<std::unique_ptr<ScratchFiles>> create(
      const std::vector<ExperimentFile>& files, const std::map<std::string, std::string>& given,
      const std::function<bool()>& go_on);
  ~ScratchFiles();
  ScratchFiles(const ScratchFiles&) = delete;
  ScratchFiles& operator=(const ScratchFiles&) = delete;

  const std::map<std::string, std::string>& paths() const { return paths_; }

 private:
  ScratchFiles() = default;
  loop::Result<void> make(const ExperimentFile& file, const std::function<bool()>& go_on);

  std::map<std::string, std::string> paths_;
  std::vector<std::string> own_;
};

}  // namespace skiff::vmm
