// SPDX-License-Identifier: GPL-2.0-or-later
// Disks that are opened while the machine runs, from servers that take their time.
#include "vmm/disk_opener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task_scope.h"
#include "loop/unique_fd.h"
#include "loop/unix_socket.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"
#include "vmm/config/disk_config.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

class DiskOpenerTest : public ::testing::Test {
 protected:
  // One worker: whoever waited on it for work of its own would wait for ever.
  DiskOpenerTest() : pool_(*loop::WorkerPool::create({.min_workers = 1, .max_workers = 1})) {}
  ~DiskOpenerTest() override {
    opener_.give_up();
    turn_until_idle();
  }

  void turn_until_idle() {
    loop::TaskScope scope(*loop_);
    scope.spawn(opener_.wait_until_idle(waiting_for_));
    while (scope.running() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  static DiskConfig disk(const std::string& path, const std::string& serial = "") {
    DiskConfig config;
    config.path = path;
    config.serial = serial;
    return config;
  }
  // How it ended: "" when there is an image, nothing yet before.
  using Answer = std::shared_ptr<std::optional<std::string>>;
  Answer open(const DiskConfig& config) {
    auto answer = std::make_shared<std::optional<std::string>>();
    opener_.open(config, *pool_, [answer](DiskOpener::Image image) {
      *answer = image ? "" : image.error().message();
    });
    return answer;
  }
  void turn_until(const Answer& answer) {
    while (!*answer) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  // Takes connections, and says nothing to whoever is there.
  std::string silent_server() {
    const std::string path = directory_.path("nbd" + std::to_string(servers_.size()));
    servers_.push_back(*loop::listen_unix(path));
    return "nbd+unix:///?socket=" + path;
  }
  void wait_for_caller() {
    pollfd caller = {servers_.back().get(), POLLIN, 0};
    SKIFF_CHECK(::poll(&caller, 1, -1) == 1);
  }

  TempDir directory_;
  std::unique_ptr<loop::EventLoop> loop_ = *loop::EventLoop::create();
  std::unique_ptr<loop::WorkerPool> pool_;
  std::vector<loop::UniqueFd> servers_;
  std::string waiting_for_;
  DiskOpener opener_{*loop_};
};

TEST_F(DiskOpenerTest, FileIsOpenedInALaterTurn) {
  const Answer answer = open(disk(directory_.make_sparse("disk", 1 << 20)));
  EXPECT_FALSE(*answer);
  turn_until(answer);
  EXPECT_EQ(**answer, "");
  const Answer missing = open(disk(directory_.path("missing")));
  turn_until(missing);
  EXPECT_THAT(**missing, HasSubstr("No such file"));
}

TEST_F(DiskOpenerTest, ServerThatDoesNotAnswerKeepsNobodyElseWaiting) {
  const Answer slow = open(disk(silent_server(), "A"));
  wait_for_caller();
  // The loop turns, and others are opened.
  const Answer file = open(disk(directory_.make_sparse("disk", 1 << 20)));
  turn_until(file);
  EXPECT_EQ(**file, "");
  EXPECT_FALSE(*slow);
}

TEST_F(DiskOpenerTest, SecondDiskOfTheSameSerialNumberIsRefusedMeanwhile) {
  const Answer slow = open(disk(silent_server(), "A"));
  const Answer same = open(disk(directory_.make_sparse("disk", 1 << 20), "A"));
  EXPECT_FALSE(*same);
  turn_until(same);
  EXPECT_THAT(**same, HasSubstr("serial number A is being added already"));
  EXPECT_FALSE(*slow);
}

TEST_F(DiskOpenerTest, AsManyAsMayBeOpenedAtOnceAreAndNoMore) {
  std::vector<Answer> slow;
  for (size_t i = 0; i < DiskOpener::kOpeningsMax; ++i) slow.push_back(open(disk(silent_server())));
  const Answer refused = open(disk(silent_server()));
  turn_until(refused);
  EXPECT_THAT(**refused, HasSubstr("8 disks are being opened already"));
  for (const Answer& answer : slow) EXPECT_FALSE(*answer);
}

// A server that is asked has ten seconds; the end of the machine does not wait for them.
TEST_F(DiskOpenerTest, GivingUpEndsTheWaitingAtOnceAndForGood) {
  const std::string url = silent_server();
  const Answer slow = open(disk(url));
  wait_for_caller();
  const int64_t begin_ns = loop_->now_ns();
  opener_.give_up();
  turn_until_idle();
  ASSERT_TRUE(*slow);
  EXPECT_THAT(**slow, HasSubstr("Given up"));
  EXPECT_EQ(waiting_for_, "disk " + url + ", which is being opened");
  EXPECT_LT(loop_->now_ns() - begin_ns, 5'000'000'000);
  const Answer late = open(disk(url));
  turn_until(late);
  EXPECT_THAT(**late, HasSubstr("about to end"));
}

}  // namespace
}  // namespace skiff::vmm
