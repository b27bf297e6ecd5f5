// SPDX-License-Identifier: GPL-2.0-or-later
// ScriptedServer: an NBD server in the test, just large enough to misbehave in every way.
//
// Fixed newstyle handshake, simple replies, a disk in memory whose writes become durable only by
// FLUSH or FUA. Thread: its own; the public functions from the test's. Ownership: owns its thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/unique_fd.h"

namespace skiff::block {

class ScriptedServer {
 public:
  enum class Fault : uint8_t {
    kNone,
    kWrongMagic,         // Something else listens there.
    kSilentHandshake,    // Accepts, and says nothing.
    kHangUpInHandshake,  // In the middle of it.
    kSilentRequests,     // Takes requests, and never answers.
    kHangUpInReply,      // After half a reply.
    kGarbageReply,       // A reply that is none.
    kShutdownErrors,     // Answers everything with ESHUTDOWN.
    kWriteErrors,        // Answers writes with ENOSPC.
  };
  struct Behaviour {
    Fault fault = Fault::kNone;
    uint64_t claimed_bytes = 1 << 20;
    bool read_only = false;
    bool flush = true;
    bool fua = true;
    bool multi_conn = false;
  };
  struct Seen {
    uint32_t connections = 0;
    uint32_t writes = 0;
    uint32_t flushes = 0;
    uint32_t fua = 0;
  };
  static constexpr size_t kDiskBytes = 1 << 20;

  // An empty `socket` means TCP on the loopback.
  ScriptedServer(std::string socket, const Behaviour& behaviour);
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  const std::string& url() const { return url_; }
  // For connections from now on.
  void behave(const Behaviour& behaviour);
  // Dies and comes back: all connections end, and what was not durable is forgotten.
  void crash();
  enum class Age : uint8_t { kOldest, kNewest };
  // Only this connection ends.
  void drop_one(Age age);
  // All connections end, and there is nobody until start().
  void stop();
  void start();
  // Takes the whole disk.
  std::vector<std::byte> durable();
  Seen seen();

 private:
  struct Client {
    loop::UniqueFd fd;
    uint32_t number = 0;  // In the order of their coming.
    Behaviour behaviour;
    std::unique_ptr<loop::FdWatcher> watcher;
  };
  struct Request {
    uint16_t flags = 0;
    uint16_t type = 0;
    uint64_t cookie = 0;
    uint64_t offset = 0;
    uint32_t length = 0;
  };

  // Runs it on the server's thread, and returns when it has.
  void on_thread(const std::function<void()>& work);
  void listen();
  void drop_clients();
  void accept_one();
  static bool shake_hands(int fd, const Behaviour& behaviour);
  void serve_one(int fd);
  bool answer(const Client& client, const Request& request);
  uint32_t carry_out(const Client& client, const Request& request, std::span<std::byte> data);

  const std::string socket_;
  std::string url_;
  std::unique_ptr<loop::IoThread> thread_;
  // The thread's from here on.
  Behaviour behaviour_;
  loop::UniqueFd listener_;
  std::unique_ptr<loop::FdWatcher> accept_watcher_;
  std::map<int, Client> clients_;
  std::vector<std::byte> disk_;
  std::vector<std::byte> durable_;
  Seen seen_;
};

}  // namespace skiff::block
