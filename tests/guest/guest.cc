// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/guest/guest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "firmware/cpio.h"
#include "loop/file.h"
#include "loop/unique_fd.h"

namespace skiff::guest {
namespace {

constexpr int kAnswerMsMax = 60'000;
constexpr int kConnectAttemptsMax = 3000;
constexpr int kConnectPauseMs = 10;

std::string scratch_path(const std::string& name) {
  return ::testing::TempDir() + "skiff-" + std::to_string(::getpid()) + "-" + name;
}

void write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    ASSERT_GT(written, 0) << std::strerror(errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

std::string first_word_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
  char word[128] = {};
  EXPECT_TRUE(pipe && std::fscanf(pipe.get(), "%127s", word) == 1) << command;
  return word;
}

// Later archives of an initrd replace files of earlier ones.
std::vector<std::byte> initrd_with_script(const std::string& script, bool load_modules) {
  const std::string text = std::string("#!/bin/sh\n") +
                           (load_modules ? ". /lib/skiff/setup\n" : "mount -t proc proc /proc\n") +
                           script;
  firmware::CpioWriter archive;
  EXPECT_TRUE(archive.add_file("init", 0755, std::as_bytes(std::span(text))));
  const std::vector<std::byte> ours = archive.finish();
  const auto base = loop::MappedFile::open(image("initrd.img"));
  EXPECT_TRUE(base);
  std::vector<std::byte> both(base->bytes().begin(), base->bytes().end());
  both.insert(both.end(), ours.begin(), ours.end());
  return both;
}

}  // namespace

Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Arguments with(Arguments arguments, const std::string& option, const std::string& value) {
  const auto found = std::ranges::find(arguments, option);
  if (found == arguments.end()) return std::move(arguments) + Arguments{option, value};
  *(found + 1) = value;
  return arguments;
}

std::string image(const std::string& name) {
  const char* directory = std::getenv("SKIFF_IMAGES");
  const std::string path =
      std::string(directory != nullptr ? directory : "/skiff/images") + "/" + name;
  EXPECT_EQ(::access(path.c_str(), R_OK), 0) << path << " is missing: set SKIFF_IMAGES";
  return path;
}

ScratchFile::ScratchFile(const std::string& name, uint64_t size_bytes) : path_(scratch_path(name)) {
  const loop::UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  EXPECT_TRUE(fd) << path_;
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size_bytes)), 0);
}

ScratchFile::ScratchFile(const std::string& name, std::span<const std::byte> content)
    : ScratchFile(name) {
  const loop::UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  write_all(fd.get(), content);
}

ScratchFile::~ScratchFile() { ::unlink(path_.c_str()); }

void ScratchFile::fill_with_noise(uint64_t size_bytes) const {
  std::mt19937_64 random(size_bytes);
  std::vector<uint64_t> chunk(1 << 17);
  const loop::UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  for (uint64_t done = 0; done < size_bytes; done += chunk.size() * 8) {
    for (uint64_t& word : chunk) word = random();
    write_all(fd.get(), std::as_bytes(std::span(chunk)));
  }
}

std::string ScratchFile::read(uint64_t offset_bytes, size_t size_bytes) const {
  const loop::UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  std::string content(size_bytes, '\0');
  const ssize_t got =
      ::pread(fd.get(), content.data(), size_bytes, static_cast<off_t>(offset_bytes));
  content.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return content;
}

uint64_t ScratchFile::allocated_bytes() const {
  struct stat info = {};
  EXPECT_EQ(::stat(path_.c_str(), &info), 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

ScratchPath::ScratchPath(const std::string& name) : path_(scratch_path(name)) {
  ::unlink(path_.c_str());
}

ScratchPath::~ScratchPath() { ::unlink(path_.c_str()); }

std::string md5_of_file(const std::string& path) { return first_word_of("md5sum < " + path); }

std::string md5_of_text(const std::string& text) {
  const ScratchFile file("md5", std::as_bytes(std::span(text)));
  return md5_of_file(file.path());
}

ScriptInitrd::ScriptInitrd(const std::string& script, bool load_modules)
    : file_("initrd", initrd_with_script(script, load_modules)) {}

Arguments script_guest(const ScriptInitrd& initrd, const std::string& more_cmdline) {
  return {"run",
          "--kernel",
          image("vmlinuz"),
          "--initrd",
          initrd.path(),
          "--memory",
          "256M",
          "--serial",
          "stdio",
          "--timeout",
          "300",
          "--cmdline",
          "console=ttyS0 quiet reboot=k panic=-1 " + more_cmdline};
}

Arguments exec_guest(const std::string& command) {
  return {"run",      "--kernel", image("vmlinuz"), "--initrd", image("initrd.img"),
          "--memory", "256M",     "--timeout",      "300",      "--exec",
          command};
}

loop::UniqueFd connect_unix(const std::string& path) {
  loop::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  EXPECT_LT(path.size(), sizeof(address.sun_path));
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  for (int attempt = 0; attempt < kConnectAttemptsMax; ++attempt) {
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0)
      return fd;
    ::poll(nullptr, 0, kConnectPauseMs);
  }
  ADD_FAILURE() << path << ": " << std::strerror(errno);
  return fd;
}

ControlClient::ControlClient(const std::string& path) : fd_(connect_unix(path)) {}

std::string ControlClient::ask(const std::string& command, const std::string& members) {
  const std::string line =
      "{\"command\": \"" + command + "\"" + (members.empty() ? "" : ", " + members) + "}\n";
  EXPECT_EQ(::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(line.size()));
  std::string answer;
  char byte = 0;
  for (;;) {
    pollfd fd = {fd_.get(), POLLIN, 0};
    if (::poll(&fd, 1, kAnswerMsMax) != 1) return answer + " (no answer)";
    if (::read(fd_.get(), &byte, 1) != 1) return answer + " (hung up)";
    if (byte == '\n') return answer;
    answer += byte;
  }
}

}  // namespace skiff::guest
