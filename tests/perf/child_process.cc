// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/perf/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cinttypes>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "loop/clock.h"
#include "loop/unique_fd.h"

namespace skiff::perf {
namespace {

pid_t start(const std::vector<std::string>& command, int stdout_fd) {
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  // Copy-on-write of this small process costs less than a millisecond and is the same for
  // everybody.
  const pid_t child = ::fork();
  if (child != 0) return child;
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(nowhere, 0);
  ::dup2(stdout_fd >= 0 ? stdout_fd : nowhere, 1);
  ::dup2(nowhere, 2);
  ::execvp(words[0], words.data());
  ::_exit(127);
}

int64_t to_ns(const timeval& time) { return time.tv_sec * 1'000'000'000 + time.tv_usec * 1'000; }

// The sum over /proc/PID/smaps of anonymous memory, without the mappings that are as large as the
// guest.
int64_t anonymous_bytes(pid_t pid, uint64_t guest_bytes) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
  FILE* smaps = std::fopen(path, "re");
  if (smaps == nullptr) return -1;
  char line[512];
  bool is_guest = false;
  int64_t total = 0;
  while (std::fgets(line, sizeof(line), smaps) != nullptr) {
    uint64_t begin = 0;
    uint64_t end = 0;
    int64_t kib = 0;
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &begin, &end) == 2)
      is_guest = end - begin >= guest_bytes;
    else if (!is_guest && std::sscanf(line, "Anonymous: %" SCNd64, &kib) == 1)
      total += kib * 1024;
  }
  std::fclose(smaps);
  return total;
}

Sample wait_for(pid_t child, int64_t begin_ns) {
  int status = 0;
  rusage usage = {};
  ::wait4(child, &status, 0, &usage);
  Sample sample;
  sample.wall_ns = loop::MonotonicClock().now_ns() - begin_ns;
  sample.cpu_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  sample.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return sample;
}

}  // namespace

Sample run_to_end(const std::vector<std::string>& command) {
  const int64_t begin_ns = loop::MonotonicClock().now_ns();
  return wait_for(start(command, -1), begin_ns);
}

Output run_and_read(const std::vector<std::string>& command) {
  Output output;
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return output;
  const loop::UniqueFd reader(ends[0]);
  loop::UniqueFd writer(ends[1]);
  const int64_t begin_ns = loop::MonotonicClock().now_ns();
  const pid_t child = start(command, writer.get());
  writer.reset();
  std::array<char, 4096> part;
  ssize_t got = 0;
  while ((got = ::read(reader.get(), part.data(), part.size())) > 0)
    output.text.append(part.data(), static_cast<size_t>(got));
  output.sample = wait_for(child, begin_ns);
  return output;
}

int64_t anonymous_bytes_when_up(const std::vector<std::string>& command, uint64_t guest_bytes) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return -1;
  loop::UniqueFd reader(ends[0]);
  loop::UniqueFd writer(ends[1]);
  const pid_t child = start(command, writer.get());
  writer.reset();
  char byte = 0;
  const bool is_up = ::read(reader.get(), &byte, 1) == 1;
  const int64_t bytes = is_up ? anonymous_bytes(child, guest_bytes) : -1;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return bytes;
}

}  // namespace skiff::perf
