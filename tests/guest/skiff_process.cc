// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/guest/skiff_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace skiff::guest {
namespace {

// No output for this long is a hang, even on an emulated host.
constexpr int kSilenceMsMax = 120'000;

std::string program() {
  if (const char* path = std::getenv("SKIFF_PROGRAM")) return path;
  return SKIFF_PROGRAM_DEFAULT;
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

SkiffProcess::SkiffProcess(const std::vector<std::string>& arguments) {
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
    ::dup2(in.read_end.get(), 0);
    ::dup2(out.write_end.get(), 1);
    ::dup2(err.write_end.get(), 2);
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
  EXPECT_EQ(::write(input_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

void SkiffProcess::signal(int number) const { ::kill(pid_, number); }

bool SkiffProcess::read_some() {
  pollfd fds[2] = {{output_.get(), POLLIN, 0}, {errors_.get(), POLLIN, 0}};
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
  while (outcome_.out.find(text) == std::string::npos)
    if (has_ended() || !read_some()) return false;
  return true;
}

Outcome SkiffProcess::finish() {
  while (!has_ended() && read_some()) continue;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  outcome_.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  EXPECT_FALSE(outcome_.hung) << "no output for " << kSilenceMsMax / 1000 << " s; so far:\n"
                              << outcome_.out << outcome_.err;
  return std::move(outcome_);
}

Outcome run_skiff(const std::vector<std::string>& arguments) {
  SkiffProcess process(arguments);
  process.close_input();
  return process.finish();
}

std::string image(const std::string& name) {
  const char* directory = std::getenv("SKIFF_IMAGES");
  const std::string path =
      std::string(directory != nullptr ? directory : "/skiff/images") + "/" + name;
  EXPECT_EQ(::access(path.c_str(), R_OK), 0) << path << " is missing: set SKIFF_IMAGES";
  return path;
}

ScratchFile::ScratchFile(const std::string& name, uint64_t size_bytes)
    : path_(::testing::TempDir() + "skiff-" + std::to_string(::getpid()) + "-" + name) {
  const loop::UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  EXPECT_TRUE(fd) << path_;
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size_bytes)), 0);
}

ScratchFile::~ScratchFile() { ::unlink(path_.c_str()); }

}  // namespace skiff::guest
