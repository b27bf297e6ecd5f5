// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loop/clock.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/bench/thread_usage.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

constexpr int kCannotStart = 127;

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;

  static Result<Pipe> create() {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) return Error::from_errno(errno, "Creating a pipe");
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

// Reaps and, if need be, ends the child.
class Child {
 public:
  static Result<Child> start(const std::vector<std::string>& command, const Pipe& out,
                             const Pipe& err) {
    std::vector<char*> words;
    words.reserve(command.size() + 1);
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const UniqueFd nowhere(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) return Error::from_errno(errno, "Starting a process");
    if (pid > 0) return Child(pid);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kCannotStart);
    ::dup2(nowhere.get(), STDIN_FILENO);
    ::dup2(out.write_end.get(), STDOUT_FILENO);
    ::dup2(err.write_end.get(), STDERR_FILENO);
    ::execvp(words[0], words.data());
    ::_exit(kCannotStart);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }

  pid_t pid() const { return pid_; }
  // Exit status, or 128 + the signal that ended it.
  int wait() {
    int status = 0;
    while (::waitpid(std::exchange(pid_, -1), &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

class GuestReader {
 public:
  GuestReader(pid_t pid, const GuestHooks& hooks) : pid_(pid), hooks_(hooks) {}

  // False when the guest said nothing new for so long in all.
  bool read_to_end(Pipe& out, Pipe& err, int64_t patience_ns) {
    const int64_t deadline_ns = begin_ns_ + patience_ns;
    std::array<pollfd, 2> watched = {
        {{out.read_end.get(), POLLIN, 0}, {err.read_end.get(), POLLIN, 0}}};
    while (watched[0].fd >= 0 || watched[1].fd >= 0) {
      const int64_t left_ms = (deadline_ns - clock_.now_ns()) / 1'000'000;
      if (left_ms <= 0) return false;
      const int ready = ::poll(watched.data(), watched.size(), static_cast<int>(left_ms));
      if (ready < 0 && errno != EINTR) return false;
      if (ready <= 0) continue;
      if (watched[0].revents != 0 && !read_some(watched[0], text_)) take_lines(true);
      if (watched[1].revents != 0) read_some(watched[1], errors_);
      take_lines(false);
    }
    return true;
  }
  GuestOutcome outcome() {
    outcome_.threads = usage_since(threads_at_begin_, std::move(threads_at_end_));
    return std::move(outcome_);
  }
  // The last lines of stderr, or of what it said besides; one line.
  std::string last_words() const {
    std::string words =
        errors_.substr(errors_.size() > kTailBytes ? errors_.size() - kTailBytes : 0);
    while (!words.empty() && words.back() == '\n') words.pop_back();
    for (char& c : words)
      if (c == '\n') c = ' ';
    return words;
  }

 private:
  static constexpr size_t kTailBytes = 500;

  // False at the end.
  static bool read_some(pollfd& from, std::string& into) {
    std::array<char, 16384> part;
    const ssize_t got = ::read(from.fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) return true;
    if (got > 0) into.append(part.data(), static_cast<size_t>(got));
    if (got <= 0) from.fd = -1;
    return got > 0;
  }
  void take_lines(bool at_end) {
    size_t end = 0;
    while ((end = text_.find('\n')) != std::string::npos) {
      take_line(std::string_view(text_).substr(0, end));
      text_.erase(0, end + 1);
    }
    if (at_end) outcome_.document += text_;
  }
  void take_line(std::string_view line) {
    if (line == "begin") {
      outcome_.boot_ns = clock_.now_ns() - begin_ns_;
      if (hooks_.on_begin) hooks_.on_begin();
      threads_at_begin_ = threads_of(pid_);
    } else if (line == "end") {
      threads_at_end_ = threads_of(pid_);
      if (hooks_.on_end) hooks_.on_end();
    } else {
      outcome_.document.append(line).append("\n");
    }
  }

  const pid_t pid_;
  const GuestHooks& hooks_;
  const loop::MonotonicClock clock_;
  const int64_t begin_ns_ = clock_.now_ns();
  std::string text_;
  std::string errors_;
  std::vector<ThreadUsage> threads_at_begin_;
  std::vector<ThreadUsage> threads_at_end_;
  GuestOutcome outcome_;
};

}  // namespace

Result<GuestOutcome> run_guest_process(const std::vector<std::string>& command, int64_t patience_ns,
                                       const GuestHooks& hooks) {
  auto out = Pipe::create();
  if (!out) return out.error();
  auto err = Pipe::create();
  if (!err) return err.error();
  auto child = Child::start(command, *out, *err);
  if (!child) return child.error();
  out->write_end.reset();
  err->write_end.reset();

  GuestReader reader(child->pid(), hooks);
  const bool ended = reader.read_to_end(*out, *err, patience_ns);
  if (!ended)
    return Error(ErrorKind::kIo,
                 fmt::format("{} did not end in time {}", command.front(), reader.last_words()));
  const int status = child->wait();
  GuestOutcome outcome = reader.outcome();
  // The guest's own words say more than how the process ended.
  if (!outcome.document.empty()) return outcome;
  if (status == kCannotStart)
    return Error(ErrorKind::kNotFound, fmt::format("{} cannot be started", command.front()));
  if (status != debug_exit_status(0) || outcome.document.empty())
    return Error(ErrorKind::kIo, fmt::format("{} ended with status {}: {}", command.front(), status,
                                             reader.last_words()));
  return outcome;
}

}  // namespace skiff::vmm
