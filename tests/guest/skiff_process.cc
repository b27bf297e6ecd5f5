// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/guest/skiff_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "loop/unique_fd.h"

namespace skiff::guest {
namespace {

// No output for this long is a hang, even on an emulated host.
constexpr int kSilenceMsMax = 120'000;

std::string program() {
  if (const char* path = std::getenv("SKIFF_PROGRAM")) return path;
  // Beside this program, as the build puts it.
  char self[4096] = {};
  EXPECT_GT(::readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
  const std::string path(self);
  return path.substr(0, path.rfind('/') + 1) + "skiff";
}

struct Pipe {
  loop::UniqueFd read_end;
  loop::UniqueFd write_end;
};

Pipe make_pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  return {loop::UniqueFd(ends[0]), loop::UniqueFd(ends[1])};
}

// True while the descriptor is open after the read.
bool append_from(loop::UniqueFd& fd, std::string& text) {
  char buffer[65536];
  const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
  if (got > 0) {
    text.append(buffer, static_cast<size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    fd.reset();
  }
  return static_cast<bool>(fd);
}

}  // namespace

SkiffProcess::SkiffProcess(const std::vector<std::string>& arguments)
    : SkiffProcess(arguments, Options()) {}

SkiffProcess::SkiffProcess(const std::vector<std::string>& arguments, const Options& options) {
  ::signal(SIGPIPE, SIG_IGN);  // A command that ended early is a failed expectation.
  Pipe in = make_pipe();
  Pipe out = make_pipe();
  Pipe err = make_pipe();
  const std::string path = program();
  std::vector<char*> words = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(in.read_end.get(), 0);
    ::dup2(out.write_end.get(), 1);
    ::dup2(err.write_end.get(), 2);
    if (options.standard_streams_closed)
      for (int fd = 0; fd < 3; ++fd) ::close(fd);
    if (options.user && ::setuid(*options.user) != 0) ::_exit(126);
    ::execvp(path.c_str(), words.data());
    ::_exit(127);
  }
  input_ = std::move(in.write_end);
  output_ = std::move(out.read_end);
  errors_ = std::move(err.read_end);
}

SkiffProcess::~SkiffProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void SkiffProcess::write(const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    pollfd fd = {input_.get(), POLLOUT, 0};
    ASSERT_EQ(::poll(&fd, 1, kSilenceMsMax), 1) << "nobody takes the input";
    // This much never blocks once the pipe has said that there is room.
    const size_t part = std::min<size_t>(text.size() - written, 4096);
    const ssize_t taken = ::write(input_.get(), text.data() + written, part);
    ASSERT_GT(taken, 0) << "after " << written << " bytes: errno " << errno;
    written += static_cast<size_t>(taken);
  }
}

void SkiffProcess::signal(int number) const { ::kill(pid_, number); }

bool SkiffProcess::read_some(Streams streams) {
  const bool wants_output = streams == Streams::kBoth;
  pollfd fds[2] = {{wants_output ? output_.get() : -1, POLLIN, 0}, {errors_.get(), POLLIN, 0}};
  const int ready = ::poll(fds, 2, kSilenceMsMax);
  if (ready == 0) {
    outcome_.hung = true;
    ::kill(pid_, SIGKILL);
    return false;
  }
  if (fds[0].revents != 0) append_from(output_, outcome_.out);
  if (fds[1].revents != 0) append_from(errors_, outcome_.err);
  return true;
}

bool SkiffProcess::wait_for_output(const std::string& text) {
  size_t found = 0;
  while ((found = outcome_.out.find(text, searched_output_bytes_)) == std::string::npos)
    if (has_ended() || !read_some(Streams::kBoth)) return false;
  searched_output_bytes_ = found + text.size();
  return true;
}

bool SkiffProcess::wait_for_errors(const std::string& text) {
  size_t found = 0;
  while ((found = outcome_.err.find(text, searched_errors_bytes_)) == std::string::npos)
    if (!errors_ || !read_some(Streams::kErrors)) return false;
  searched_errors_bytes_ = found + text.size();
  return true;
}

bool SkiffProcess::ends_by_itself() const {
  const loop::UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  EXPECT_TRUE(process);
  pollfd fd = {process.get(), POLLIN, 0};
  return ::poll(&fd, 1, 60'000) == 1;
}

bool SkiffProcess::is_silent_for(int milliseconds) {
  pollfd fd = {output_.get(), POLLIN, 0};
  while (::poll(&fd, 1, 0) > 0)
    if (!append_from(output_, outcome_.out)) return false;
  return ::poll(&fd, 1, milliseconds) == 0;
}

size_t SkiffProcess::unread_output_bytes() const {
  int bytes = 0;
  EXPECT_EQ(::ioctl(output_.get(), FIONREAD, &bytes), 0);
  return static_cast<size_t>(bytes);
}

void SkiffProcess::read_output(size_t bytes_max) {
  std::string buffer(bytes_max, '\0');
  const ssize_t got = ::read(output_.get(), buffer.data(), buffer.size());
  if (got > 0) outcome_.out.append(buffer, 0, static_cast<size_t>(got));
}

Outcome SkiffProcess::finish() {
  while (!has_ended() && read_some(Streams::kBoth)) continue;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  outcome_.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  EXPECT_FALSE(outcome_.hung) << "no output for " << kSilenceMsMax / 1000 << " s; so far:\n"
                              << outcome_.out << outcome_.err;
  return std::move(outcome_);
}

Outcome run_skiff(const std::vector<std::string>& arguments, const SkiffProcess::Options& options) {
  SkiffProcess process(arguments, options);
  process.close_input();
  return process.finish();
}

}  // namespace skiff::guest
