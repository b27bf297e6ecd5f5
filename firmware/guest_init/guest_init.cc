// SPDX-License-Identifier: GPL-2.0-or-later
// The init that Skiff appends to the initrd for --exec and --shell. It runs inside the guest, as
// process 1.
//
// It loads the virtio modules that the initrd holds, finds the control port, moves into the root
// disk if there is one, runs what the control port asks for, reports its status and powers off.
// Static, and of system calls only: whatever the guest's distribution is, it has nothing this
// needs.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "firmware/guest_init/protocol.h"

namespace {

using namespace skiff::firmware::guest_protocol;

int control_fd = -1;

// Skiff has been told how it went and ends the machine once it has passed on all output. If it
// could not be told, the guest ends itself.
[[noreturn]] void wait_for_the_end() {
  if (control_fd < 0) reboot(RB_POWER_OFF);
  for (;;) pause();
}

void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
void report(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  if (control_fd < 0) {
    fprintf(stderr, "skiff init: %s", line);
  } else if (length > 0) {
    const ssize_t written = write(control_fd, line, static_cast<size_t>(length));
    if (written != length) fprintf(stderr, "skiff init: cannot report: %s", line);
  }
}

[[noreturn]] void fail(const char* what, const char* subject) {
  report("%s %s %s: %s\n", kReplyError, what, subject, strerror(errno));
  wait_for_the_end();
}

void load_module(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  // A module that is there already, or whose hardware is not, is no reason to stop.
  if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST && errno != ENODEV)
    fprintf(stderr, "skiff init: loading %s: %s\n", path, strerror(errno));
  close(fd);
}

// Loads what one line of modules.dep names: the dependencies, last one first, then the module.
void load_with_dependencies(const char* directory, char* line) {
  char* words[64];
  size_t count = 0;
  for (char* word = strtok(line, ": \n"); word != nullptr && count < 64;
       word = strtok(nullptr, " \n"))
    words[count++] = word;
  for (size_t i = count; i-- > 0;) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", directory, words[i]);
    load_module(path);
  }
}

bool is_wanted(const char* line) {
  static const char* const kWanted[] = {"/virtio_pci.ko",     "/virtio_mmio.ko", "/virtio_blk.ko",
                                        "/virtio_console.ko", "/virtio-rng.ko",  "/ext4.ko"};
  const char* colon = strchr(line, ':');
  if (colon == nullptr) return false;
  for (const char* wanted : kWanted) {
    const size_t length = strlen(wanted);
    const auto path_length = static_cast<size_t>(colon - line);
    if (path_length >= length && memcmp(colon - length, wanted, length) == 0) return true;
  }
  return false;
}

// An initrd made for Skiff lists its modules in order; any other one has modules.dep.
void load_modules() {
  char line[4096];
  if (FILE* list = fopen(kModuleList, "re")) {
    while (fgets(line, sizeof(line), list) != nullptr) {
      line[strcspn(line, "\n")] = '\0';
      if (line[0] != '\0') load_module(line);
    }
    fclose(list);
    return;
  }
  utsname kernel = {};
  uname(&kernel);
  char directory[256];
  snprintf(directory, sizeof(directory), "/lib/modules/%s", kernel.release);
  char path[300];
  snprintf(path, sizeof(path), "%s/modules.dep", directory);
  FILE* list = fopen(path, "re");
  if (list == nullptr)
    return;  // Then the drivers are built in, or the control port will be missed.
  while (fgets(line, sizeof(line), list) != nullptr)
    if (is_wanted(line)) load_with_dependencies(directory, line);
  fclose(list);
}

// The device node of the virtio-console port called `name`; false while there is none.
bool find_port(const char* name, char* path, size_t size) {
  DIR* ports = opendir("/sys/class/virtio-ports");
  if (ports == nullptr) return false;
  bool found = false;
  while (const dirent* entry = readdir(ports)) {
    char file[300];
    char content[128] = {};
    snprintf(file, sizeof(file), "/sys/class/virtio-ports/%s/name", entry->d_name);
    FILE* stream = fopen(file, "re");
    if (stream == nullptr) continue;
    if (fgets(content, sizeof(content), stream) != nullptr) {
      content[strcspn(content, "\n")] = '\0';
      if (strcmp(content, name) == 0) {
        snprintf(path, size, "/dev/%s", entry->d_name);
        found = true;
      }
    }
    fclose(stream);
    if (found) break;
  }
  closedir(ports);
  return found;
}

int open_port(const char* name) {
  // Devices appear by themselves once their driver is loaded; ten seconds are long even for an
  // emulated host.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    char path[300];
    if (find_port(name, path, sizeof(path))) {
      const int fd = open(path, O_RDWR | O_CLOEXEC);
      if (fd >= 0) return fd;
    }
    usleep(10'000);
  }
  errno = ENODEV;
  return -1;
}

struct Request {
  bool shell = false;
  char command[kCommandBytesMax + 1] = {};
};

// "exec LENGTH\n" and that many bytes, or "shell\n".
void read_request(Request& request) {
  char line[64] = {};
  size_t length = 0;
  while (length + 1 < sizeof(line)) {
    const ssize_t got = read(control_fd, line + length, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) {  // The host has not opened its end yet.
      usleep(1000);
      continue;
    }
    if (got < 0) fail("reading", "the control port");
    if (line[length] == '\n') break;
    ++length;
  }
  line[length] = '\0';
  if (strcmp(line, kRequestShell) == 0) {
    request.shell = true;
    return;
  }
  size_t command_bytes = 0;
  if (sscanf(line, "exec %zu", &command_bytes) != 1 || command_bytes > kCommandBytesMax) {
    errno = EPROTO;
    fail("understanding", line);
  }
  for (size_t got = 0; got < command_bytes;) {
    const ssize_t part = read(control_fd, request.command + got, command_bytes - got);
    if (part < 0 && errno != EINTR) fail("reading", "the command");
    if (part > 0) got += static_cast<size_t>(part);
  }
}

// Mounts the first virtio disk or partition that holds a root file system; false when there is
// none.
bool mount_root(const char* where) {
  static const char* const kTypes[] = {"ext4", "xfs", "btrfs", "squashfs", "erofs"};
  FILE* partitions = fopen("/proc/partitions", "re");
  if (partitions == nullptr) return false;
  char line[256];
  bool mounted = false;
  while (!mounted && fgets(line, sizeof(line), partitions) != nullptr) {
    char name[64];
    if (sscanf(line, "%*u %*u %*u %63s", name) != 1 || strncmp(name, "vd", 2) != 0) continue;
    char device[80];
    snprintf(device, sizeof(device), "/dev/%s", name);
    for (const char* type : kTypes) {
      mounted = mount(device, where, type, 0, nullptr) == 0 ||
                (errno == EACCES && mount(device, where, type, MS_RDONLY, nullptr) == 0);
      if (mounted) break;
    }
    char shell[80];
    snprintf(shell, sizeof(shell), "%s/bin/sh", where);
    if (mounted && access(shell, X_OK) != 0) {  // Somebody's data, not a system.
      umount(where);
      mounted = false;
    }
  }
  fclose(partitions);
  return mounted;
}

void enter_root_disk() {
  mkdir("/skiff-root", 0755);
  if (!mount_root("/skiff-root")) return;
  static const char* const kMoved[] = {"/proc", "/sys", "/dev"};
  for (const char* directory : kMoved) {
    char target[64];
    snprintf(target, sizeof(target), "/skiff-root%s", directory);
    mkdir(target, 0755);
    if (mount(directory, target, nullptr, MS_MOVE, nullptr) != 0) fail("moving", directory);
  }
  if (chdir("/skiff-root") != 0 || chroot(".") != 0) fail("entering", "the root disk");
}

void make_surroundings() {
  mkdir("/dev/pts", 0755);
  mkdir("/dev/shm", 0755);
  mount("devpts", "/dev/pts", "devpts", 0, "mode=0620,ptmxmode=0666");
  mount("tmpfs", "/dev/shm", "tmpfs", 0, nullptr);
  mkdir("/run", 0755);
  mount("tmpfs", "/run", "tmpfs", 0, "mode=0755");
  sethostname("skiff", strlen("skiff"));
  const char* directory = "/root";
  if (chdir(directory) != 0 && chdir("/") != 0) fail("entering", directory);
  setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  setenv("HOME", directory, 1);
}

[[noreturn]] void run_child(const Request& request, const int (&streams)[3]) {
  setsid();
  if (request.shell) {
    const int terminal = open("/dev/hvc0", O_RDWR);
    if (terminal < 0) fail("opening", "/dev/hvc0");
    ioctl(terminal, TIOCSCTTY, 1);
    dup2(terminal, 0);
    dup2(terminal, 1);
    dup2(terminal, 2);
    if (terminal > 2) close(terminal);
    setenv("TERM", "linux", 0);
    execl("/bin/bash", "-bash", nullptr);
    execl("/bin/sh", "-sh", nullptr);
  } else {
    for (int i = 0; i < 3; ++i) dup2(streams[i], i);
    execl("/bin/sh", "sh", "-c", request.command, nullptr);
  }
  fail("starting", "/bin/sh (give a root disk, or an initrd that has a shell)");
}

// Nobody is left who could write: to the ports, which are seen to close, or to the disk.
void end_everybody() {
  kill(-1, SIGKILL);
  while (wait(nullptr) > 0) continue;
  sync();
  mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
}

// Until the host's side of both output ports is there: before, they look as if nobody read them.
void wait_for_readers(const int (&streams)[3]) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    pollfd ports[2] = {{streams[1], 0, 0}, {streams[2], 0, 0}};
    if (poll(ports, 2, 0) == 0) return;
    usleep(10'000);
  }
  errno = ENOTCONN;
  fail("waiting for", "the host's side of the output");
}

// Process 1 collects every orphan; the status that counts is the child's. When nobody reads the
// child's output any more it gets the signal that a broken pipe would have sent: a write to such a
// port would wait for ever.
int wait_for(pid_t child, const int (&streams)[3]) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int children = signalfd(-1, &signals, SFD_CLOEXEC);
  pollfd events[3] = {{children, POLLIN, 0}, {streams[1], 0, 0}, {streams[2], 0, 0}};
  for (;;) {
    int status = 0;
    pid_t ended = waitpid(-1, &status, WNOHANG);
    for (; ended > 0 && ended != child; ended = waitpid(-1, &status, WNOHANG)) continue;
    if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    poll(events, 3, -1);
    signalfd_siginfo info;
    if ((events[0].revents & POLLIN) != 0 && read(children, &info, sizeof(info)) < 0) continue;
    for (int i = 1; i < 3; ++i) {
      if ((events[i].revents & POLLHUP) == 0) continue;
      kill(-child, SIGPIPE);
      events[i].fd = -1;
    }
  }
}

}  // namespace

int main() {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("sysfs", "/sys", "sysfs", 0, nullptr);
  mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
  load_modules();

  control_fd = open_port(kControlPort);
  if (control_fd < 0) fail("finding", "the control port (are the virtio modules in the initrd?)");
  static Request request;
  read_request(request);
  enter_root_disk();
  make_surroundings();
  int streams[3] = {-1, -1, -1};
  static const char* const kPorts[3] = {kStdinPort, kStdoutPort, kStderrPort};
  for (int i = 0; i < 3 && !request.shell; ++i) {
    streams[i] = open_port(kPorts[i]);
    if (streams[i] < 0) fail("finding the port", kPorts[i]);
  }
  if (!request.shell) wait_for_readers(streams);
  report("%s\n", kReplyStarted);
  const pid_t child = fork();
  if (child < 0) fail("starting", "a process");
  if (child == 0) run_child(request, streams);
  const int status = wait_for(child, streams);
  end_everybody();
  for (const int fd : streams)
    if (fd >= 0) close(fd);
  report("%s %d\n", kReplyExit, status);
  wait_for_the_end();
}
