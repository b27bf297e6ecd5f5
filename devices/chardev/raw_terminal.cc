// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/raw_terminal.h"

#include <signal.h>
#include <termios.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "loop/result.h"

namespace skiff::devices {
namespace {

// The handler of a crash can reach nothing else. `fd` is -1 while no terminal is raw.
struct SavedTerminal {
  std::atomic<int> fd{-1};
  termios mode{};
  std::array<struct sigaction, NSIG> previous{};
};
SavedTerminal saved;

constexpr std::array kCrashSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

void on_crash(int signal_number) {
  RawTerminal::restore_now();
  // Whoever was there before (a sanitizer, or the default) gets it when this handler returns.
  ::sigaction(signal_number, &saved.previous[static_cast<size_t>(signal_number)], nullptr);
  ::raise(signal_number);
}

void catch_crashes() {
  for (const int signal_number : kCrashSignals) {
    struct sigaction action{};
    action.sa_handler = on_crash;
    ::sigemptyset(&action.sa_mask);
    action.sa_flags = SA_ONSTACK;
    ::sigaction(signal_number, &action, &saved.previous[static_cast<size_t>(signal_number)]);
  }
}

void release_crashes() {
  for (const int signal_number : kCrashSignals)
    ::sigaction(signal_number, &saved.previous[static_cast<size_t>(signal_number)], nullptr);
}

bool set_raw(int fd) {
  termios raw = saved.mode;
  ::cfmakeraw(&raw);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  return ::tcsetattr(fd, TCSANOW, &raw) == 0;
}

void restore_at_exit() {
  static const int kRegistered = std::atexit(RawTerminal::restore_now);
  static_cast<void>(kRegistered);
}

}  // namespace

loop::Result<std::unique_ptr<RawTerminal>> RawTerminal::create(int fd) {
  if (saved.fd.load() >= 0)
    return loop::Error(loop::ErrorKind::kBusy,
                       "The terminal is in use by another port; give one of them another place");
  if (::tcgetattr(fd, &saved.mode) != 0)
    return loop::Error::from_errno(errno, "Reading the terminal's mode");
  saved.fd.store(fd);
  catch_crashes();
  restore_at_exit();
  if (!set_raw(fd)) {
    const int os_error = errno;
    saved.fd.store(-1);
    release_crashes();
    return loop::Error::from_errno(os_error, "Putting the terminal into raw mode");
  }
  return std::unique_ptr<RawTerminal>(new RawTerminal());
}

RawTerminal::~RawTerminal() {
  restore_now();
  release_crashes();
}

void RawTerminal::restore_now() {
  const int fd = saved.fd.exchange(-1);
  if (fd >= 0) ::tcsetattr(fd, TCSANOW, &saved.mode);
}

void RawTerminal::make_raw_again() {
  const int fd = saved.fd.load();
  if (fd >= 0) set_raw(fd);
}

}  // namespace skiff::devices
