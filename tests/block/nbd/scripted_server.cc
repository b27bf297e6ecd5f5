// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/block/nbd/scripted_server.h"

#include <endian.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/mutex.h"
#include "loop/unique_fd.h"

// Numbers as in the NBD protocol (doc/proto.md of the NBD project).
namespace skiff::block {
namespace {

constexpr uint64_t kServerMagic = 0x4e42444d41474943;
constexpr uint64_t kOptionMagic = 0x49484156454f5054;
constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kReplyMagic = 0x67446698;
constexpr uint32_t kOptionGo = 7;
constexpr uint32_t kReplyAck = 1;
constexpr uint32_t kReplyInfo = 3;
constexpr uint32_t kReplyUnsupported = 0x80000001;
constexpr uint16_t kRead = 0;
constexpr uint16_t kWrite = 1;
constexpr uint16_t kDisconnect = 2;
constexpr uint16_t kFlush = 3;
constexpr uint16_t kTrim = 4;
constexpr uint16_t kZero = 6;
constexpr uint16_t kFua = 1;
constexpr uint32_t kErrorNoSpace = 28;
constexpr uint32_t kErrorInvalid = 22;
constexpr uint32_t kErrorShutdown = 108;

class Packet {
 public:
  Packet& u16(uint16_t value) { return put(htobe16(value)); }
  Packet& u32(uint32_t value) { return put(htobe32(value)); }
  Packet& u64(uint64_t value) { return put(htobe64(value)); }
  bool send_to(int fd) const {
    return send(fd, bytes_.data(), bytes_.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes_.size());
  }

 private:
  template <typename T>
  Packet& put(T value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), begin, begin + sizeof value);
    return *this;
  }
  std::vector<std::byte> bytes_;
};

bool receive(int fd, void* into, size_t size) {
  return size == 0 || recv(fd, into, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

template <typename T>
bool receive_number(int fd, T& value) {
  if (!receive(fd, &value, sizeof value)) return false;
  if constexpr (sizeof value == 2) value = be16toh(value);
  if constexpr (sizeof value == 4) value = be32toh(value);
  if constexpr (sizeof value == 8) value = be64toh(value);
  return true;
}

uint16_t transmission_flags(const ScriptedServer::Behaviour& behaviour) {
  uint32_t flags = 1 | 0x20 | 0x40;  // There are flags, TRIM, WRITE_ZEROES.
  if (behaviour.read_only) flags |= 2;
  if (behaviour.flush) flags |= 4;
  if (behaviour.fua) flags |= 8;
  if (behaviour.multi_conn) flags |= 0x100;
  return static_cast<uint16_t>(flags);
}

}  // namespace

ScriptedServer::ScriptedServer(std::string socket, const Behaviour& behaviour)
    : socket_(std::move(socket)),
      thread_(*loop::IoThread::create({.name = "scripted"})),
      behaviour_(behaviour),
      disk_(kDiskBytes),
      durable_(kDiskBytes) {
  start();
}

ScriptedServer::~ScriptedServer() { stop(); }

void ScriptedServer::on_thread(const std::function<void()>& work) {
  loop::Mutex mutex;
  loop::ConditionVariable changed;
  bool done = false;
  thread_->loop().post([&] {
    work();
    const loop::MutexLock lock(mutex);
    done = true;
    changed.notify_one();
  });
  const loop::MutexLock lock(mutex);
  while (!done) changed.wait(mutex);
}

void ScriptedServer::listen() {
  listener_.reset(::socket(socket_.empty() ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket_.empty()) {
    sockaddr_in where = {};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    socklen_t length = sizeof where;
    ASSERT_EQ(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&where), &length), 0);
    url_ = "nbd://localhost:" + std::to_string(ntohs(where.sin_port)) + "/";
  } else {
    unlink(socket_.c_str());
    sockaddr_un where = {};
    where.sun_family = AF_UNIX;
    std::memcpy(where.sun_path, socket_.c_str(), socket_.size() + 1);
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    url_ = "nbd+unix:///?socket=" + socket_;
  }
  ASSERT_EQ(::listen(listener_.get(), 16), 0);
  accept_watcher_ =
      std::make_unique<loop::FdWatcher>(thread_->loop(), listener_.get(), loop::Priority::kDevice,
                                        [this](uint32_t) { accept_one(); });
  accept_watcher_->watch(POLLIN);
}

void ScriptedServer::start() {
  on_thread([this] { listen(); });
}

void ScriptedServer::stop() {
  on_thread([this] {
    accept_watcher_.reset();
    listener_.reset();
    drop_clients();
    disk_ = durable_;
  });
}

void ScriptedServer::crash() {
  on_thread([this] {
    drop_clients();
    disk_ = durable_;
  });
}

void ScriptedServer::drop_one(Age age) {
  on_thread([this, age] {
    const auto [oldest, newest] = std::ranges::minmax_element(
        clients_, {}, [](const auto& client) { return client.second.number; });
    if (!clients_.empty()) clients_.erase(age == Age::kOldest ? oldest : newest);
  });
}

void ScriptedServer::drop_clients() { clients_.clear(); }

void ScriptedServer::behave(const Behaviour& behaviour) {
  on_thread([&] { behaviour_ = behaviour; });
}

std::vector<std::byte> ScriptedServer::durable() {
  std::vector<std::byte> copy;
  on_thread([&] { copy = durable_; });
  return copy;
}

ScriptedServer::Seen ScriptedServer::seen() {
  Seen copy;
  on_thread([&] { copy = seen_; });
  return copy;
}

void ScriptedServer::accept_one() {
  loop::UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return;
  ++seen_.connections;
  const int number = fd.get();
  Client client{.fd = std::move(fd),
                .number = seen_.connections,
                .behaviour = behaviour_,
                .watcher = nullptr};
  if (client.behaviour.fault != Fault::kSilentHandshake) {
    if (!shake_hands(number, client.behaviour)) return;
    client.watcher =
        std::make_unique<loop::FdWatcher>(thread_->loop(), number, loop::Priority::kDevice,
                                          [this, number](uint32_t) { serve_one(number); });
    client.watcher->watch(POLLIN);
  }
  clients_.erase(number);
  clients_.emplace(number, std::move(client));
}

bool ScriptedServer::shake_hands(int fd, const Behaviour& behaviour) {
  const uint64_t magic =
      behaviour.fault == Fault::kWrongMagic ? 0x5353482d322e302d : kServerMagic;  // "SSH-2.0-"
  if (!Packet().u64(magic).u64(kOptionMagic).u16(3).send_to(fd)) return false;
  uint32_t client_flags = 0;
  if (!receive_number(fd, client_flags)) return false;
  while (true) {
    uint64_t option_magic = 0;
    uint32_t option = 0;
    uint32_t length = 0;
    if (!receive_number(fd, option_magic) || !receive_number(fd, option) ||
        !receive_number(fd, length))
      return false;
    std::vector<std::byte> data(length);
    if (!receive(fd, data.data(), length)) return false;
    if (behaviour.fault == Fault::kHangUpInHandshake) return false;
    Packet reply;
    reply.u64(kOptionReplyMagic).u32(option);
    if (option != kOptionGo) {
      if (!reply.u32(kReplyUnsupported).u32(0).send_to(fd)) return false;
      continue;
    }
    reply.u32(kReplyInfo).u32(12).u16(0).u64(behaviour.claimed_bytes);
    reply.u16(transmission_flags(behaviour));
    reply.u64(kOptionReplyMagic).u32(option).u32(kReplyAck).u32(0);
    return reply.send_to(fd);
  }
}

void ScriptedServer::serve_one(int fd) {
  const Client& client = clients_.at(fd);
  uint32_t magic = 0;
  Request request;
  const bool whole = receive_number(fd, magic) && receive_number(fd, request.flags) &&
                     receive_number(fd, request.type) && receive(fd, &request.cookie, 8) &&
                     receive_number(fd, request.offset) && receive_number(fd, request.length);
  if (!whole || magic != kRequestMagic || request.type == kDisconnect || !answer(client, request))
    clients_.erase(fd);
}

bool ScriptedServer::answer(const Client& client, const Request& request) {
  const int fd = client.fd.get();
  std::vector<std::byte> data(request.type == kRead || request.type == kWrite ? request.length : 0);
  if (request.type == kWrite && !receive(fd, data.data(), data.size())) return false;
  const Fault fault = client.behaviour.fault;
  if (fault == Fault::kSilentRequests) return true;
  const uint32_t error = carry_out(client, request, data);
  if (fault == Fault::kHangUpInReply) {
    Packet().u32(kReplyMagic).u32(0).send_to(fd);
    return false;
  }
  Packet reply;
  reply.u32(fault == Fault::kGarbageReply ? 0xdeadbeef : kReplyMagic).u32(error);
  if (!reply.u64(be64toh(request.cookie)).send_to(fd)) return false;
  if (request.type != kRead || error != 0) return true;
  return send(fd, data.data(), data.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(data.size());
}

uint32_t ScriptedServer::carry_out(const Client& client, const Request& request,
                                   std::span<std::byte> data) {
  if (client.behaviour.fault == Fault::kShutdownErrors) return kErrorShutdown;
  if (request.type == kFlush) {
    ++seen_.flushes;
    durable_ = disk_;
    return 0;
  }
  if (request.offset > kDiskBytes || request.length > kDiskBytes - request.offset)
    return kErrorInvalid;
  const auto range = std::span(disk_).subspan(request.offset, request.length);
  if (request.type == kRead) {
    std::ranges::copy(range, data.begin());
    return 0;
  }
  if (client.behaviour.fault == Fault::kWriteErrors) return kErrorNoSpace;
  ++seen_.writes;
  if (request.type == kWrite) std::ranges::copy(data, range.begin());
  if (request.type == kTrim || request.type == kZero) std::ranges::fill(range, std::byte{0});
  if ((request.flags & kFua) != 0) {
    ++seen_.fua;
    std::ranges::copy(range, durable_.begin() + static_cast<ptrdiff_t>(request.offset));
  }
  return 0;
}

}  // namespace skiff::block
