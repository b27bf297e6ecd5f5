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
  struct Options {
    bool standard_streams_closed = false;  // As a careless service manager starts programs.
    std::optional<uid_t> user;
  };

  // `arguments` without the program's name. stdin is a pipe until close_input().
  explicit SkiffProcess(const std::vector<std::string>& arguments);
  SkiffProcess(const std::vector<std::string>& arguments, const Options& options);
  ~SkiffProcess();
  SkiffProcess(const SkiffProcess&) = delete;
  SkiffProcess& operator=(const SkiffProcess&) = delete;

  pid_t pid() const { return pid_; }
  // What was read so far, for messages of failed tests.
  std::string transcript() const { return outcome_.out + outcome_.err; }
  // All of it, for as long as somebody takes it.
  void write(const std::string& text);
  void close_input() { input_.reset(); }
  void signal(int number) const;
  // Reads until `text` has been seen on stdout, behind what the last call has found; false when the
  // process ended or hung before.
  bool wait_for_output(const std::string& text);
  // The same for stderr; stdout stays unread.
  bool wait_for_errors(const std::string& text);
  // Reads nothing; false when the process goes on for a minute.
  bool ends_by_itself() const;
  // Reads what is there, then waits for more: false when something came.
  bool is_silent_for(int milliseconds);
  // In the pipe of stdout, not read yet.
  size_t unread_output_bytes() const;
  // Waits for one byte of stdout and reads no more than this.
  void read_output(size_t bytes_max);
  // Reads to the end and reaps.
  Outcome finish();

 private:
  enum class Streams { kBoth, kErrors };
  bool read_some(Streams streams);
  bool has_ended() const { return !output_ && !errors_; }

  pid_t pid_ = -1;
  loop::UniqueFd input_;
  loop::UniqueFd output_;
  loop::UniqueFd errors_;
  size_t searched_output_bytes_ = 0;
  size_t searched_errors_bytes_ = 0;
  Outcome outcome_;
};

// Starts, closes stdin and finishes.
Outcome run_skiff(const std::vector<std::string>& arguments,
                  const SkiffProcess::Options& options = {});

}  // namespace skiff::guest
