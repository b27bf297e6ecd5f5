// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff storage` as a process, driven over vhost-user: killed and restarted under load it loses
// nothing, and a signal ends it when all is done.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/frontend.h"
#include "loop/event_notifier.h"
#include "tests/block/nbd/server_process.h"
#include "tests/temp_dir.h"

namespace skiff::vmm {
namespace {

using devices::DriverBuffer;
using devices::FrontendMemory;
using devices::GuestAddress;
using devices::GuestDriver;
using devices::VhostUserFrontend;
using loop::EventNotifier;

constexpr uint16_t kQueues = 2;
constexpr uint16_t kQueueSize = 64;
constexpr uint16_t kDepth = 16;
constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kBlocks = 256;
constexpr uint64_t kArenaBytes = 512 * 1024;

std::string program() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "skiff";
}

struct Header {
  uint32_t type = 0;
  uint32_t reserved = 0;
  uint64_t sector = 0;
};

// One queue, which writes numbered blocks and knows which number each block must hold.
class Writer {
 public:
  Writer(const FrontendMemory& memory, uint16_t index)
      : memory_(memory),
        index_(index),
        driver_(
            memory.memory(),
            {.queue_size = kQueueSize, .base = {index * kArenaBytes}, .arena_bytes = kArenaBytes}),
        kick_(*EventNotifier::create()),
        call_(*VhostUserFrontend::create_call_eventfd()) {
    for (Slot& slot : slots_) {
      slot.header = driver_.allocate(sizeof(Header));
      slot.data = driver_.allocate(kBlockBytes);
      slot.status = driver_.allocate(1);
    }
  }

  VhostUserFrontend::Queue queue() const {
    return {.layout = driver_.layout(), .kick_fd = kick_.fd(), .call_fd = call_.fd()};
  }
  int call_fd() const { return call_.fd(); }
  uint64_t completed() const { return completed_; }
  uint32_t in_flight() const { return in_flight_; }
  // Block `index + 2 * n` is this queue's; the last number that was answered for it.
  uint64_t number_of(uint64_t block) const { return numbers_[block]; }

  // One write per block at a time: what the file must hold is never in doubt.
  void offer() {
    bool offered = false;
    for (Slot& slot : slots_) {
      if (slot.head) continue;
      slot.block = next_block_++ % (kBlocks / kQueues) * kQueues + index_;
      slot.number = ++last_number_;
      memory_.memory().store(slot.header, Header{.type = VIRTIO_BLK_T_OUT,
                                                 .sector = slot.block * (kBlockBytes / 512)});
      std::vector<uint64_t> words(kBlockBytes / 8, slot.number);
      EXPECT_TRUE(memory_.memory().write(slot.data, std::as_bytes(std::span(words))));
      memory_.memory().store(slot.status, uint8_t{0xee});
      const std::array chain = {DriverBuffer::readable(slot.header, sizeof(Header)),
                                DriverBuffer::readable(slot.data, kBlockBytes),
                                DriverBuffer::writable(slot.status, 1)};
      slot.head = driver_.add(chain);
      ASSERT_TRUE(slot.head);
      ++in_flight_;
      offered = true;
    }
    if (offered && driver_.publish()) kick_.notify();
  }
  void collect() {
    call_.consume();
    while (const auto used = driver_.collect()) {
      Slot* answered = nullptr;
      for (Slot& slot : slots_)
        if (slot.head == static_cast<uint16_t>(used->head)) answered = &slot;
      ASSERT_NE(answered, nullptr) << "head " << used->head << " was answered twice";
      EXPECT_EQ(memory_.memory().load<uint8_t>(answered->status), VIRTIO_BLK_S_OK);
      numbers_[answered->block] = answered->number;
      answered->head.reset();
      --in_flight_;
      ++completed_;
    }
  }

 private:
  struct Slot {
    GuestAddress header;
    GuestAddress data;
    GuestAddress status;
    uint64_t block = 0;
    uint64_t number = 0;
    std::optional<uint16_t> head;
  };

  const FrontendMemory& memory_;
  const uint16_t index_;
  GuestDriver driver_;
  EventNotifier kick_;
  EventNotifier call_;
  std::array<Slot, kDepth> slots_;
  std::array<uint64_t, kBlocks> numbers_{};
  uint64_t next_block_ = 0;
  uint64_t last_number_ = 0;
  uint64_t completed_ = 0;
  uint32_t in_flight_ = 0;
};

class StorageProcessTest : public ::testing::Test {
 protected:
  void connect() {
    auto frontend = VhostUserFrontend::connect({.socket = socket_, .timeout_ns = 20'000'000'000});
    ASSERT_TRUE(frontend) << frontend.error().message();
    frontend_ = *std::move(frontend);
    const bool logs = frontend_->can_keep_inflight();
    if (logs && inflight_.fd.get() < 0) {
      auto inflight = frontend_->create_inflight(kQueues, kQueueSize);
      ASSERT_TRUE(inflight) << inflight.error().message();
      inflight_ = *std::move(inflight);
    }
    const std::array queues = {writers_[0].queue(), writers_[1].queue()};
    auto started = frontend_->start({.features = devices::kVirtioVersion1,
                                     .memory = memory_.regions(),
                                     .queues = queues,
                                     .inflight = logs ? &inflight_ : nullptr});
    ASSERT_TRUE(started) << started.error().message();
  }
  // Writes until so many have been answered by this connection.
  void write_blocks(uint64_t count) {
    const uint64_t until = writers_[0].completed() + writers_[1].completed() + count;
    while (writers_[0].completed() + writers_[1].completed() < until) {
      for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.offer());
      ASSERT_NO_FATAL_FAILURE(await_answers());
    }
  }
  void await_answers() {
    std::array<pollfd, 2> ready = {pollfd{writers_[0].call_fd(), POLLIN, 0},
                                   pollfd{writers_[1].call_fd(), POLLIN, 0}};
    ASSERT_GT(::poll(ready.data(), ready.size(), 20'000), 0) << "no answer for 20 s";
    for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.collect());
  }
  void finish() {
    while (writers_[0].in_flight() + writers_[1].in_flight() > 0)
      ASSERT_NO_FATAL_FAILURE(await_answers());
  }
  void check_file() {
    const std::vector<std::byte> bytes = dir_.read_file("disk");
    for (uint64_t block = 0; block < kBlocks; ++block) {
      const uint64_t expected = writers_[block % kQueues].number_of(block);
      for (uint32_t at = 0; at < kBlockBytes; at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, &bytes[block * kBlockBytes + at], 8);
        ASSERT_EQ(word, expected) << "block " << block << " byte " << at;
      }
    }
  }
  std::vector<std::string> command(const std::string& engine) const {
    return {program(), "storage", "--socket",
            socket_,   "--disk",  "path=" + disk_ + ",queues=2,queue-size=64,engine=" + engine};
  }

  TempDir dir_;
  const std::string disk_ = dir_.make_sparse("disk", kBlocks* kBlockBytes);
  const std::string socket_ = dir_.path("socket");
  FrontendMemory memory_ = *FrontendMemory::create(kQueues * kArenaBytes);
  std::array<Writer, kQueues> writers_ = {Writer(memory_, 0), Writer(memory_, 1)};
  VhostUserFrontend::InflightFile inflight_;
  std::unique_ptr<VhostUserFrontend> frontend_;
};

TEST_F(StorageProcessTest, KilledAndRestartedUnderLoadItLosesNothing) {
  block::ServerProcess server(command("auto"), socket_);
  for (int round = 0; round < 12; ++round) {
    ASSERT_NO_FATAL_FAILURE(connect());
    ASSERT_NO_FATAL_FAILURE(write_blocks(200 + static_cast<uint64_t>(round) * 17));
    for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.offer());
    ASSERT_NO_FATAL_FAILURE(server.restart());
  }
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(finish());
  check_file();
}

TEST_F(StorageProcessTest, ThreadsOfAnEngineThatAreKilledLoseNothingEither) {
  block::ServerProcess server(command("threads"), socket_);
  for (int round = 0; round < 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(connect());
    ASSERT_NO_FATAL_FAILURE(write_blocks(100));
    for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.offer());
    ASSERT_NO_FATAL_FAILURE(server.restart());
  }
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(finish());
  check_file();
}

TEST_F(StorageProcessTest, FrontEndMayGoAndComeBack) {
  block::ServerProcess server(command("sync"), socket_);
  for (int round = 0; round < 3; ++round) {
    ASSERT_NO_FATAL_FAILURE(connect());
    ASSERT_NO_FATAL_FAILURE(write_blocks(50));
    for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.offer());
    frontend_.reset();
  }
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(finish());
  check_file();
}

TEST_F(StorageProcessTest, TermEndsItWhenAllIsDoneAndItsSocketIsGone) {
  block::ServerProcess server(command("auto"), socket_);
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(write_blocks(100));
  for (Writer& writer : writers_) ASSERT_NO_FATAL_FAILURE(writer.offer());
  EXPECT_EQ(server.terminate(), 0);
  // What it had taken is answered; what it had not is still open, and marked so.
  for (Writer& writer : writers_) writer.collect();
  EXPECT_FALSE(std::filesystem::exists(socket_));
  pollfd gone{.fd = frontend_->connection_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&gone, 1, 20'000), 1);
  server.restart();
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(finish());
  check_file();
}

// The library drives other people's back ends as well.
TEST_F(StorageProcessTest, QemuStorageDaemonIsDrivenAndStoppedAndDrivenOn) {
  block::ServerProcess server(
      {"qemu-storage-daemon", "--blockdev",
       "driver=file,node-name=disk,filename=" + disk_ + ",cache.direct=off", "--export",
       "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,addr.type=unix,"
       "addr.path=" +
           socket_},
      socket_);
  ASSERT_NO_FATAL_FAILURE(connect());
  ASSERT_NO_FATAL_FAILURE(write_blocks(500));
  ASSERT_NO_FATAL_FAILURE(finish());
  virtio_blk_config config = {};
  ASSERT_TRUE(frontend_->read_config(0, {reinterpret_cast<uint8_t*>(&config), 60}));
  EXPECT_EQ(config.capacity, kBlocks * kBlockBytes / 512);
  const auto bases = frontend_->stop();
  ASSERT_TRUE(bases) << bases.error().message();
  EXPECT_EQ((*bases)[0], static_cast<uint16_t>(writers_[0].completed()));
  EXPECT_EQ((*bases)[1], static_cast<uint16_t>(writers_[1].completed()));
  check_file();
}

}  // namespace
}  // namespace skiff::vmm
