// SPDX-License-Identifier: GPL-2.0-or-later
// What guests under test are made of: images, initrds with a script of the test, scratch disks; and
// a client of the control socket.
//
// Thread: the test's. Ownership: files are gone with their objects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loop/unique_fd.h"

namespace skiff::guest {

using Arguments = std::vector<std::string>;
Arguments operator+(Arguments left, const Arguments& right);
// Replaces the value of an option that is there, or adds the option.
Arguments with(Arguments arguments, const std::string& option, const std::string& value);

// A file of the images' directory (SKIFF_IMAGES): "vmlinuz", "vmlinux", "modules.cpio",
// "initrd.img", "rootfs.img". The test fails when it is not there.
std::string image(const std::string& name);

// A private sparse file in the temporary directory.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name, uint64_t size_bytes = 0);
  ScratchFile(const std::string& name, std::span<const std::byte> content);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const std::string& path() const { return path_; }

  void fill_with_noise(uint64_t size_bytes) const;
  std::string read(uint64_t offset_bytes, size_t size_bytes) const;
  uint64_t allocated_bytes() const;

 private:
  std::string path_;
};

// A free path in the temporary directory, for a socket; what is there later goes with the object.
class ScratchPath {
 public:
  explicit ScratchPath(const std::string& name);
  ~ScratchPath();
  ScratchPath(const ScratchPath&) = delete;
  ScratchPath& operator=(const ScratchPath&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// What `md5sum` prints for these bytes, without the file's name.
std::string md5_of_file(const std::string& path);
std::string md5_of_text(const std::string& text);

// initrd.img with a script in the place of its init; drivers are loaded before the script runs. Its
// output goes to the console.
class ScriptInitrd {
 public:
  explicit ScriptInitrd(const std::string& script, bool load_modules = true);
  const std::string& path() const { return file_.path(); }

 private:
  ScratchFile file_;
};

// `skiff run` of a guest whose process 1 is a script, with the console on stdio.
Arguments script_guest(const ScriptInitrd& initrd, const std::string& more_cmdline = "");
// `skiff run --exec` with busybox and without a disk; quicker to start than one with a root disk.
Arguments exec_guest(const std::string& command);

// One connection to a control socket.
class ControlClient {
 public:
  // Waits for somebody to listen.
  explicit ControlClient(const std::string& path);
  // Sends one command, with more members as JSON has them, and returns the line that answers it.
  std::string ask(const std::string& command, const std::string& members = "");

 private:
  loop::UniqueFd fd_;
};

// Connects to a unix socket, for which it waits half a minute; then the test fails.
loop::UniqueFd connect_unix(const std::string& path);

}  // namespace skiff::guest
