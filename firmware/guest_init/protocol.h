// SPDX-License-Identifier: GPL-2.0-or-later
// What Skiff and the init inside the guest say to each other, over virtio-console ports.
//
// Host to guest on the control port: "exec LENGTH\n" and LENGTH bytes of a shell command, or
// "shell\n". Guest to host: "started\n", then "exit STATUS\n"; or "error MESSAGE\n" when nothing
// could be run. Thread: any; constants, shared by two programs.
#pragma once

#include <cstddef>

namespace skiff::firmware::guest_protocol {

inline constexpr const char* kControlPort = "skiff.control";
// One port each: the end of the input is a hang-up, which must not close the output as well.
inline constexpr const char* kStdinPort = "skiff.stdin";
inline constexpr const char* kStdoutPort = "skiff.stdout";
inline constexpr const char* kStderrPort = "skiff.stderr";

inline constexpr const char* kRequestShell = "shell";
inline constexpr const char* kReplyStarted = "started";
inline constexpr const char* kReplyExit = "exit";
inline constexpr const char* kReplyError = "error";

inline constexpr size_t kCommandBytesMax = 128 * 1024;

// Where the init lies in the archive, and the list of modules that an initrd made for Skiff holds,
// in loading order.
inline constexpr const char* kInitPath = "/skiff/init";
inline constexpr const char* kModuleList = "/lib/skiff/modules";

}  // namespace skiff::firmware::guest_protocol
