// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/services/control_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"
#include "vmm/disk_activity.h"
#include "vmm/disk_removal.h"
#include "vmm/disk_status.h"
#include "vmm/machine_control.h"

namespace skiff::vmm {
namespace {

class FakeMachine final : public MachineControl {
 public:
  MachineStatus status() const override {
    return {MachineState::kRunning, 4, 512 << 20, 1, stop_reason, disks};
  }
  void pause(std::function<void()> done) override { note("pause", std::move(done)); }
  void resume(std::function<void()> done) override { note("resume", std::move(done)); }
  void reset(std::function<void()> done) override { note("reset", std::move(done)); }
  bool press_power_button() override {
    calls.emplace_back("power-button");
    return true;
  }
  loop::Result<void> set_disk_faults(std::string_view disk, std::string_view rules) override {
    if (disk != "disk0") return loop::Error(loop::ErrorKind::kNotFound, "No such disk");
    calls.push_back("faults " + std::string(rules));
    return {};
  }
  loop::Result<void> set_disk_submit(std::string_view disk, std::string_view submit) override {
    if (submit == "magic") return loop::Error(loop::ErrorKind::kInvalidArgument, "No such way");
    calls.push_back("submit " + std::string(disk) + " " + std::string(submit));
    return {};
  }
  void resize_disk(std::string_view disk, std::optional<uint64_t> size_bytes,
                   std::function<void(const loop::Result<void>&)> done) override {
    calls.push_back("resize " + std::string(disk) + " " + std::to_string(size_bytes.value_or(0)));
    pending.emplace_back([done = std::move(done)] {
      done(loop::Error(loop::ErrorKind::kUnsupported, "It cannot"));
    });
  }
  void add_disk(std::string_view option,
                std::function<void(const loop::Result<std::string>&)> done) override {
    calls.push_back("add " + std::string(option));
    pending.emplace_back([done = std::move(done)] { done(std::string("disk3")); });
  }
  void remove_disk(std::string_view disk, const DiskRemoval& removal,
                   std::function<void(const loop::Result<void>&)> done) override {
    calls.push_back("remove " + std::string(disk) + (removal.is_forced ? " by force" : "") +
                    " within " + std::to_string(removal.timeout_ns));
    pending.emplace_back([done = std::move(done)] {
      done(loop::Error(loop::ErrorKind::kBusy, "The guest has not given it up"));
    });
  }
  void quit() override { calls.emplace_back("quit"); }

  void note(const char* call, std::function<void()> done) {
    calls.emplace_back(call);
    pending.push_back(std::move(done));
  }
  std::string stop_reason;
  std::vector<DiskStatus> disks;
  std::vector<std::string> calls;
  std::vector<std::function<void()>> pending;
};

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() {
    auto server = ControlServer::create(loop_, machine_, path_);
    SKIFF_CHECK(server.has_value());
    server_ = *std::move(server);
  }

  loop::UniqueFd connect() {
    loop::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    loop_.run_until_idle();
    return fd;
  }
  void send(const loop::UniqueFd& fd, const std::string& text) {
    EXPECT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    loop_.run_until_idle();
  }
  std::string receive(const loop::UniqueFd& fd) {
    char buffer[4096];
    const ssize_t got = ::recv(fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    return got > 0 ? std::string(buffer, static_cast<size_t>(got)) : "";
  }

  loop::ManualLoop loop_;
  FakeMachine machine_;
  TempDir directory_;
  const std::string path_ = directory_.path("control");
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, StatusIsAnsweredWithTheRequestsId) {
  const auto fd = connect();
  send(fd, "{\"command\": \"status\", \"id\": 7}\n");
  const auto answer = nlohmann::json::parse(receive(fd));
  EXPECT_EQ(answer["id"], 7);
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["state"], "running");
  EXPECT_EQ(answer["vcpus"], 4);
}

TEST_F(ControlServerTest, MachineThatPausedByItselfSaysWhy) {
  const auto fd = connect();
  send(fd, "{\"command\": \"status\"}\n");
  EXPECT_FALSE(nlohmann::json::parse(receive(fd)).contains("stop_reason"));
  machine_.stop_reason = "disk0: No space left on device";
  send(fd, "{\"command\": \"status\"}\n");
  EXPECT_EQ(nlohmann::json::parse(receive(fd))["stop_reason"], machine_.stop_reason);
}

TEST_F(ControlServerTest, DisksTellWhereTheirQueuesAreAndWhy) {
  const auto fd = connect();
  DiskActivity activity{.submit = "auto"};
  activity.queues.push_back({.mode = "vcpu", .home = "vcpu1", .why = "because", .requests = 7});
  activity.latency.push_back({"read", 7, 1000, 2000});
  activity.stages.push_back({"device", 7, 512, 1024});
  machine_.disks.push_back({.name = "disk0", .path = "a.img", .activity = activity});
  send(fd, "{\"command\": \"status\"}\n");
  const auto told = nlohmann::json::parse(receive(fd))["disks"][0];
  EXPECT_EQ(told["disk"], "disk0");
  EXPECT_EQ(told["submit"], "auto");
  EXPECT_EQ(told["queues"][0]["home"], "vcpu1");
  EXPECT_EQ(told["queues"][0]["why"], "because");
  EXPECT_EQ(told["queues"][0]["requests"], 7);
  EXPECT_EQ(told["latency"]["read"]["p99_ns"], 2000);
  EXPECT_EQ(told["stages"]["device"]["p50_ns"], 512);
}

TEST_F(ControlServerTest, ModeIsChangedByDisk) {
  const auto fd = connect();
  send(fd, "{\"command\": \"set-submit\", \"disk\": \"disk0\", \"submit\": \"vcpu\"}\n");
  EXPECT_EQ(receive(fd), "{\"ok\":true}\n");
  EXPECT_EQ(machine_.calls, std::vector<std::string>{"submit disk0 vcpu"});
  send(fd, "{\"command\": \"set-submit\", \"disk\": \"disk0\", \"submit\": \"magic\"}\n");
  EXPECT_NE(receive(fd).find("No such way"), std::string::npos);
}

TEST_F(ControlServerTest, FaultsAreSetByDiskAndRefusalsAreHandedBack) {
  const auto fd = connect();
  send(fd, "{\"command\": \"set-faults\", \"disk\": \"disk0\", \"rules\": \"error=EIO\"}\n");
  EXPECT_EQ(receive(fd), "{\"ok\":true}\n");
  EXPECT_EQ(machine_.calls, std::vector<std::string>{"faults error=EIO"});
  send(fd, "{\"command\": \"set-faults\", \"disk\": 7, \"rules\": \"\"}\n");
  EXPECT_NE(receive(fd).find("No such disk"), std::string::npos);
  // Not taken for the empty text, which ends all faults.
  send(fd, "{\"command\": \"set-faults\", \"disk\": \"disk0\"}\n");
  EXPECT_NE(receive(fd).find("is no text"), std::string::npos);
  EXPECT_EQ(machine_.calls.size(), 1u);
}

TEST_F(ControlServerTest, StatusListsTheDisks) {
  const auto fd = connect();
  send(fd, "{\"command\": \"status\"}\n");
  EXPECT_EQ(nlohmann::json::parse(receive(fd))["disks"], nlohmann::json::array());
  machine_.disks = {{.name = "disk0", .path = "a.img", .size_bytes = 512},
                    {.name = "disk1",
                     .path = "b.img",
                     .serial = "B",
                     .is_read_only = true,
                     .pci = DiskPlug{3, DiskPlug::State::kAskedFor}}};
  send(fd, "{\"command\": \"status\"}\n");
  const auto disks = nlohmann::json::parse(receive(fd))["disks"];
  ASSERT_EQ(disks.size(), 2u);
  EXPECT_EQ(disks[0], (nlohmann::json{{"disk", "disk0"},
                                      {"path", "a.img"},
                                      {"size_bytes", 512},
                                      {"readonly", false},
                                      {"bus", "mmio"}}));
  EXPECT_EQ(disks[1]["serial"], "B");
  EXPECT_EQ(disks[1]["pci_slot"], 3);
  EXPECT_EQ(disks[1]["state"], "asked-for");
}

TEST_F(ControlServerTest, DiskIsAddedAsTextOrAsAnObject) {
  const auto fd = connect();
  send(fd, "{\"command\": \"add-disk\", \"disk\": \"path=a.img,format=raw\"}\n");
  send(fd, "{\"command\": \"add-disk\", \"disk\": {\"path\": \"b.img\"}}\n");
  send(fd, "{\"command\": \"add-disk\"}\n");
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"add \"path=a.img,format=raw\"",
                                                      "add {\"path\":\"b.img\"}", "add null"}));
  EXPECT_EQ(receive(fd), "");
  machine_.pending[0]();
  loop_.run_until_idle();
  EXPECT_EQ(receive(fd), "{\"disk\":\"disk3\",\"ok\":true}\n");
}

TEST_F(ControlServerTest, DiskIsRemovedWithinItsTimeAndRefusalsAreHandedBack) {
  const auto fd = connect();
  send(fd, "{\"command\": \"remove-disk\", \"disk\": \"disk1\"}\n");
  send(fd, "{\"command\": \"remove-disk\", \"disk\": \"B\", \"force\": true, \"timeout\": 3}\n");
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"remove disk1 within 10000000000",
                                                      "remove B by force within 3000000000"}));
  machine_.pending[0]();
  loop_.run_until_idle();
  EXPECT_NE(receive(fd).find("The guest has not given it up"), std::string::npos);
  for (const char* wrong : {"\"force\": 1", "\"timeout\": 0", "\"timeout\": 3601",
                            "\"timeout\": \"soon\"", "\"timeout\": 1.5"}) {
    send(fd, std::string("{\"command\": \"remove-disk\", ") + wrong + "}\n");
    EXPECT_NE(receive(fd).find("\"ok\":false"), std::string::npos) << wrong;
  }
  EXPECT_EQ(machine_.calls.size(), 2u);
}

TEST_F(ControlServerTest, DiskIsResizedToASizeOrToItsFiles) {
  const auto fd = connect();
  send(fd, "{\"command\": \"resize-disk\", \"disk\": \"disk0\", \"size\": \"2K\"}\n");
  send(fd, "{\"command\": \"resize-disk\", \"disk\": \"disk1\"}\n");
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"resize disk0 2048", "resize disk1 0"}));
  EXPECT_EQ(receive(fd), "");
  machine_.pending[0]();
  EXPECT_NE(receive(fd).find("It cannot"), std::string::npos);
  send(fd, "{\"command\": \"resize-disk\", \"disk\": \"disk0\", \"size\": 7}\n");
  EXPECT_NE(receive(fd).find("no size"), std::string::npos);
  EXPECT_EQ(machine_.calls.size(), 2u);
}

TEST_F(ControlServerTest, PauseIsAnsweredOnlyWhenItHasHappened) {
  const auto fd = connect();
  send(fd, "{\"command\": \"pause\"}\n");
  EXPECT_EQ(receive(fd), "");
  ASSERT_EQ(machine_.pending.size(), 1u);
  machine_.pending[0]();
  EXPECT_EQ(receive(fd), "{\"ok\":true}\n");
}

TEST_F(ControlServerTest, SeveralLinesInOnePieceAndOneLineInSeveralAreTheSame) {
  const auto fd = connect();
  send(fd, "{\"command\": \"power-button\"}\n{\"comm");
  send(fd, "and\": \"quit\"}\n");
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"power-button", "quit"}));
}

TEST_F(ControlServerTest, NonsenseIsRefusedAndTheConnectionLives) {
  const auto fd = connect();
  send(fd, "hello\n[]\n{\"command\": 3}\n{\"command\": \"fly\"}\n");
  const std::string answers = receive(fd);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), '\n'), 4);
  EXPECT_EQ(answers.find("\"ok\":true"), std::string::npos);
  EXPECT_NE(answers.find("Unknown command \\\"fly\\\" (allowed: status"), std::string::npos);
  send(fd, "{\"command\": \"power-button\"}\n");
  EXPECT_EQ(machine_.calls.size(), 1u);
}

TEST_F(ControlServerTest, AnEndlessLineEndsTheConnection) {
  const auto fd = connect();
  send(fd, std::string(60 * 1024, 'x'));
  send(fd, std::string(60 * 1024, 'x'));
  loop_.run_until_idle();
  char byte = 0;
  const ssize_t got = ::recv(fd.get(), &byte, 1, MSG_DONTWAIT);
  // What was sent and never read makes the end a reset.
  EXPECT_TRUE(got == 0 || (got < 0 && errno == ECONNRESET)) << got << " " << errno;
}

TEST_F(ControlServerTest, AClientThatLeavesBeforeItsAnswerHurtsNobody) {
  {
    const auto fd = connect();
    send(fd, "{\"command\": \"reset\"}\n");
  }
  loop_.run_until_idle();
  ASSERT_EQ(machine_.pending.size(), 1u);
  machine_.pending[0]();
  loop_.run_until_idle();
  const auto other = connect();
  send(other, "{\"command\": \"status\"}\n");
  EXPECT_NE(receive(other), "");
}

TEST_F(ControlServerTest, ASecondServerOnTheSameSocketIsRefused) {
  const auto second = ControlServer::create(loop_, machine_, path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), loop::ErrorKind::kBusy);
}

TEST_F(ControlServerTest, TheSocketIsPrivateAndGoesWithTheServer) {
  struct stat info = {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  server_.reset();
  EXPECT_NE(::stat(path_.c_str(), &info), 0);
}

}  // namespace
}  // namespace skiff::vmm
