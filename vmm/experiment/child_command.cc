// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/child_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::Result;

constexpr size_t kOutBytesMax = size_t{32} << 20;
constexpr size_t kErrBytesMax = 4096;
constexpr int64_t kGraceNs = 2'000'000'000;

struct PipeEnds {
  loop::UniqueFd reader;
  loop::UniqueFd writer;
};

Result<PipeEnds> make_pipe() {
  std::array<int, 2> ends = {-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Error::from_errno(errno, "Making a pipe");
  PipeEnds pipe{loop::UniqueFd(ends[0]), loop::UniqueFd(ends[1])};
  ::fcntl(pipe.reader.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

// In the child, between fork and exec: only what is safe there.
[[noreturn]] void become(char* const* words, int out_fd, int err_fd, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  for (const int number : {SIGPIPE, SIGXFSZ}) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nowhere = ::open("/dev/null", O_RDONLY);
  ::dup2(nowhere, STDIN_FILENO);
  ::dup2(out_fd, STDOUT_FILENO);
  ::dup2(err_fd, STDERR_FILENO);
  ::execvp(words[0], words);
  constexpr std::string_view kMessage = "This program does not run\n";
  (void)!::write(STDERR_FILENO, kMessage.data(), kMessage.size());
  ::_exit(127);
}

int64_t to_ns(const timeval& time) { return time.tv_sec * 1'000'000'000 + time.tv_usec * 1'000; }

}  // namespace

ChildCommand::ChildCommand(loop::EventLoop& loop, std::function<void(ChildCommand&)> on_end)
    : loop_(loop), on_end_(std::move(on_end)), timeout_(loop, loop::Priority::kDevice, [this] {
        if (!ending_) {
          outcome_.timed_out = true;
          return end();
        }
        ::kill(-pid_, SIGKILL);
      }) {}

Result<std::unique_ptr<ChildCommand>> ChildCommand::start(
    loop::EventLoop& loop, const std::vector<std::string>& words, int64_t timeout_ns,
    std::function<void(ChildCommand&)> on_end) {
  auto out = make_pipe();
  if (!out) return out.error();
  auto err = make_pipe();
  if (!err) return err.error();
  std::vector<char*> raw;
  raw.reserve(words.size() + 1);
  for (const std::string& word : words) raw.push_back(const_cast<char*>(word.c_str()));
  raw.push_back(nullptr);
  std::unique_ptr<ChildCommand> child(new ChildCommand(loop, std::move(on_end)));
  const pid_t parent = ::getpid();
  child->start_ns_ = loop.now_ns();
  child->pid_ = ::fork();
  if (child->pid_ == 0) become(raw.data(), out->writer.get(), err->writer.get(), parent);
  if (child->pid_ < 0) {
    child->reaped_ = true;
    return Error::from_errno(errno, "Starting a child process");
  }
  ::setpgid(child->pid_, child->pid_);  // Whoever comes first: end() needs the group.
  child->out_.fd = std::move(out->reader);
  child->err_.fd = std::move(err->reader);
  child->exit_.fd.reset(static_cast<int>(::syscall(SYS_pidfd_open, child->pid_, 0)));
  if (!child->exit_.fd) return Error::from_errno(errno, "Watching a child process");
  child->watch(child->out_, child->outcome_.out, false);
  child->watch(child->err_, child->outcome_.err, true);
  child->exit_.watcher =
      std::make_unique<loop::FdWatcher>(loop, child->exit_.fd.get(), loop::Priority::kDevice,
                                        [self = child.get()](uint32_t) { self->on_exit(); });
  child->exit_.watcher->watch(POLLIN);
  child->timeout_.arm_after(timeout_ns);
  return child;
}

ChildCommand::~ChildCommand() {
  if (reaped_) return;
  ::kill(-pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void ChildCommand::watch(Pipe& pipe, std::string& into, bool keep_end_only) {
  pipe.watcher = std::make_unique<loop::FdWatcher>(loop_, pipe.fd.get(), loop::Priority::kDevice,
                                                   [this, &pipe, &into, keep_end_only](uint32_t) {
                                                     if (!read_some(pipe, into, keep_end_only))
                                                       pipe.watcher->watch(0);
                                                   });
  pipe.watcher->watch(POLLIN);
}

bool ChildCommand::read_some(Pipe& pipe, std::string& into, bool keep_end_only) {
  std::array<char, 65536> part;
  while (true) {
    const ssize_t got = ::read(pipe.fd.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) return false;
    into.append(part.data(), static_cast<size_t>(got));
    if (keep_end_only && into.size() > kErrBytesMax) {
      into.erase(0, into.size() - kErrBytesMax);
    } else if (into.size() > kOutBytesMax) {
      outcome_.too_long = true;
      into.clear();
      end();
      return false;
    }
  }
}

void ChildCommand::end() {
  if (ending_ || reaped_) return;
  ending_ = true;
  ::kill(-pid_, SIGTERM);
  timeout_.arm_after(kGraceNs);
}

void ChildCommand::on_exit() {
  int status = 0;
  rusage usage = {};
  // Not before the group is gone: as long as the leader is unreaped, its number is no other's.
  ::kill(-pid_, SIGKILL);
  ::wait4(pid_, &status, 0, &usage);
  reaped_ = true;
  timeout_.cancel();
  exit_.watcher->watch(0);
  if (!outcome_.too_long) read_some(out_, outcome_.out, false);
  read_some(err_, outcome_.err, true);
  outcome_.wall_ns = loop_.now_ns() - start_ns_;
  outcome_.cpu_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  outcome_.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  out_.watcher.reset();
  err_.watcher.reset();
  exit_.watcher.reset();
  // Moved out: the call may destroy what holds it.
  const auto on_end = std::move(on_end_);
  on_end(*this);
}

}  // namespace skiff::vmm
