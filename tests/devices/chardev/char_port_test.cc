// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/char_port.h"

#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "devices/chardev/char_backend.h"
#include "devices/testing/fake_char_backend.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class CharPortTest : public ::testing::Test {
 protected:
  CharPortTest() {
    port_.set_callbacks([this] { ++inputs_; }, [this] { ++rooms_; });
  }

  std::string read(size_t size) {
    std::string text(size, '\0');
    text.resize(port_.read({reinterpret_cast<uint8_t*>(text.data()), size}));
    return text;
  }

  loop::ManualLoop loop_;
  FakeCharBackend* host_ = new FakeCharBackend();
  CharPort port_{
      loop_, std::unique_ptr<CharBackend>(host_), {.output_bytes = 16, .input_bytes = 8}};
  int inputs_ = 0;
  int rooms_ = 0;
};

TEST_F(CharPortTest, OutputReachesTheHostFromTheLoopAndNotFromTheWriter) {
  EXPECT_EQ(port_.write(bytes("hello")), 5u);
  EXPECT_EQ(host_->output(), "");
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "hello");
  EXPECT_EQ(port_.pending_output_bytes(), 0u);
  EXPECT_EQ(port_.counters().output_bytes, 5u);
}

TEST_F(CharPortTest, HostThatDoesNotReadLeavesTheWriterWithoutRoomAndLosesNothing) {
  host_->set_room(0);
  EXPECT_EQ(port_.write(bytes("0123456789abcdefXYZ")), 16u);
  loop_.run_until_idle();
  EXPECT_EQ(port_.writable_bytes(), 0u);
  EXPECT_EQ(port_.write(bytes("X")), 0u);
  EXPECT_EQ(rooms_, 0);
  EXPECT_EQ(port_.counters().refused_bytes, 4u);

  host_->give_room(2);  // Not worth a call yet.
  EXPECT_EQ(rooms_, 0);
  host_->give_room(3);
  EXPECT_EQ(rooms_, 1);
  EXPECT_EQ(port_.write(bytes("XYZ")), 3u);
  host_->give_room();
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "0123456789abcdefXYZ");
  EXPECT_EQ(rooms_, 1);  // Nobody was refused again.
}

TEST_F(CharPortTest, WithNobodyThereTheNewestOutputWaitsAndTheGuestDoesNot) {
  host_->set_peer(false);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(port_.write(bytes("line" + std::to_string(i) + ";")), 6u);
  EXPECT_EQ(port_.write(bytes("a text that is longer than all of the ring.")), 43u);
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "");
  host_->set_peer(true);
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "all of the ring.");
  EXPECT_EQ(port_.counters().discarded_bytes, 60u + 43u - 16u);
}

TEST_F(CharPortTest, PeerThatLeavesReleasesAGuestThatWaitedForIt) {
  host_->set_room(0);
  EXPECT_EQ(port_.write(bytes("0123456789abcdef!")), 16u);
  loop_.run_until_idle();
  host_->set_peer(false);
  EXPECT_EQ(rooms_, 1);
  EXPECT_EQ(port_.write(bytes("!")), 1u);
}

TEST_F(CharPortTest, InputBeyondTheRingStaysWithTheHostAndArrivesInOrder) {
  host_->type("0123456789abcdefghij");
  EXPECT_EQ(port_.readable_bytes(), 8u);
  EXPECT_EQ(host_->waiting_input(), 12u);
  std::string got;
  for (int i = 0; i < 100 && got.size() < 20; ++i) {
    got += read(3);
    loop_.run_until_idle();
  }
  EXPECT_EQ(got, "0123456789abcdefghij");
  EXPECT_GT(inputs_, 1);
  EXPECT_EQ(read(1), "");
}

TEST_F(CharPortTest, FloodDoesNotKeepTheLoopInOneTurn) {
  auto* host = new FakeCharBackend();
  CharPort big(loop_, std::unique_ptr<CharBackend>(host), {.output_bytes = 1 << 20});
  const std::string flood(1 << 20, 'x');
  EXPECT_EQ(big.write(bytes(flood)), flood.size());
  loop_.loop().run_once(loop::EventLoop::Wait::kNo);
  loop_.loop().run_once(loop::EventLoop::Wait::kNo);
  EXPECT_LT(host->output().size(), flood.size());
  loop_.run_until_idle();
  EXPECT_EQ(host->output().size(), flood.size());
}

TEST_F(CharPortTest, OutputLeftAtTheEndIsOfferedToTheHost) {
  loop::ManualLoop loop;
  std::string seen;
  class Keeper final : public CharBackend {
   public:
    explicit Keeper(std::string& seen_output) : seen_(seen_output) {}
    void start(CharSink&) override {}
    size_t write(std::span<const uint8_t> data) override {
      seen_.append(data.begin(), data.end());
      return data.size();
    }
    void resume_input() override {}
    std::string description() const override { return "a keeper"; }

   private:
    std::string& seen_;
  };
  {
    CharPort port(loop, std::make_unique<Keeper>(seen));
    EXPECT_EQ(port.write(bytes("last words")), 10u);
  }
  EXPECT_EQ(seen, "last words");
}

}  // namespace
}  // namespace skiff::devices
