// SPDX-License-Identifier: GPL-2.0-or-later
// SkiffProcess: a `skiff` command under test: started, written to, read from, waited for.
//
// It is killed when it shows no progress (no output) for a long time, so that a hang is a failure
// with its output in the log. Wall time itself is never judged: guests may run under software
// emulation. Thread: the test's. Ownership: owns the child process.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "loop/unique_fd.h"

namespace skiff::guest {

struct Outcome {
  int status = -1;  // Exit status, or 128 + the signal that ended it.
  bool hung = false;
  std::string out;
  std::string err;
};

class SkiffProcess {
 public:
  // `arguments` without the program's name. stdin is a pipe until close_input().
  explicit SkiffProcess(const std::vector<std::string>& arguments);
  ~SkiffProcess();
  SkiffProcess(const SkiffProcess&) = delete;
  SkiffProcess& operator=(const SkiffProcess&) = delete;

  pid_t pid() const { return pid_; }
  void write(const std::string& text);
  void close_input() { input_.reset(); }
  void signal(int number) const;
  // Reads until `text` has been seen on stdout; false when the process ended or hung before.
  bool wait_for_output(const std::string& text);
  // Reads to the end and reaps.
  Outcome finish();

 private:
  bool read_some();
  bool has_ended() const { return !output_ && !errors_; }

  pid_t pid_ = -1;
  loop::UniqueFd input_;
  loop::UniqueFd output_;
  loop::UniqueFd errors_;
  Outcome outcome_;
};

// Starts, closes stdin and finishes.
Outcome run_skiff(const std::vector<std::string>& arguments);

// A file of the images' directory (SKIFF_IMAGES): "vmlinuz", "vmlinux", "modules.cpio",
// "rootfs.img". The test fails when it is not there.
std::string image(const std::string& name);

// A private sparse file in the temporary directory, gone with the object.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name, uint64_t size_bytes = 0);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace skiff::guest
