// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/fd_console_backend.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/virtio/console/console_backend.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"

namespace skiff::devices {
namespace {

using loop::UniqueFd;
using ::testing::ElementsAre;

struct Ends {
  UniqueFd read;
  UniqueFd write;
};

Ends make_pipe() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}
Ends make_sockets() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}
void put(const UniqueFd& fd, std::string_view text) {
  ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}
std::string take(const UniqueFd& fd, size_t bytes = 64 * 1024) {
  std::string text(bytes, '\0');
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}
bool is_nonblocking(const UniqueFd& fd) { return (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0; }

class FdConsoleBackendTest : public ::testing::Test, public ConsoleBackend::Listener {
 protected:
  FdConsoleBackendTest() { std::signal(SIGPIPE, SIG_IGN); }

  void create(UniqueFd input, UniqueFd output) {
    auto backend = FdConsoleBackend::create(
        {.home = &loop_.loop(),
         .input = std::move(input),
         .output = std::move(output),
         .name = "test",
         .on_guest_changed = [this](bool open) { guest_changes_.push_back(open); }});
    ASSERT_TRUE(backend) << backend.error().message();
    backend_ = *std::move(backend);
    backend_->attach(this);
  }
  void input_ready() override { ++input_ready_; }
  void output_ready() override { ++output_ready_; }
  void host_changed() override { ++host_changed_; }

  std::string read(size_t bytes = 4096) {
    std::string text(bytes, '\0');
    text.resize(backend_->read(std::as_writable_bytes(std::span(text))));
    return text;
  }
  size_t write(std::string_view text) { return backend_->write(std::as_bytes(std::span(text))); }

  loop::ManualLoop loop_;
  std::unique_ptr<FdConsoleBackend> backend_;
  int input_ready_ = 0;
  int output_ready_ = 0;
  int host_changed_ = 0;
  std::vector<bool> guest_changes_;
};

TEST_F(FdConsoleBackendTest, InputIsAnnouncedOnceAndReadWhenAskedFor) {
  Ends pipe = make_pipe();
  create(std::move(pipe.read), {});
  EXPECT_EQ(read(), "");
  put(pipe.write, "hello");
  loop_.run_until_idle();
  EXPECT_EQ(input_ready_, 1);
  loop_.run_until_idle();
  EXPECT_EQ(input_ready_, 1);  // Unread input does not keep the loop busy.
  EXPECT_EQ(read(2), "he");
  EXPECT_EQ(read(), "llo");
  EXPECT_EQ(read(), "");
  put(pipe.write, "x");
  loop_.run_until_idle();
  EXPECT_EQ(input_ready_, 2);
}

TEST_F(FdConsoleBackendTest, EndOfInputClosesAPortWithoutOutput) {
  Ends pipe = make_pipe();
  create(std::move(pipe.read), {});
  put(pipe.write, "last");
  pipe.write.reset();
  EXPECT_TRUE(backend_->is_open());
  EXPECT_EQ(read(), "last");
  EXPECT_EQ(host_changed_, 0);
  EXPECT_EQ(read(), "");
  EXPECT_EQ(host_changed_, 1);
  EXPECT_FALSE(backend_->is_open());
  loop_.run_until_idle();
  EXPECT_EQ(read(), "");
  EXPECT_EQ(host_changed_, 1);
}

// As in `skiff run ... < fifo`. Opened again it would never report its end.
TEST_F(FdConsoleBackendTest, FifoWhoseWriterLeftBeforeWeCameStillEnds) {
  const TempDir directory;
  const std::string path = directory.path("fifo");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  UniqueFd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  put(writer, "last");
  writer.reset();
  create(std::move(reader), {});
  EXPECT_EQ(read(), "last");
  EXPECT_EQ(read(), "");
  loop_.run_until_idle();
  EXPECT_EQ(read(), "");
  EXPECT_EQ(host_changed_, 1);
  EXPECT_FALSE(backend_->is_open());
}

TEST_F(FdConsoleBackendTest, EndOfInputLeavesTheOutputOpen) {
  Ends input = make_pipe();
  Ends output = make_pipe();
  create(std::move(input.read), std::move(output.write));
  input.write.reset();
  EXPECT_EQ(read(), "");
  EXPECT_TRUE(backend_->is_open());
  EXPECT_EQ(write("still"), 5u);
  EXPECT_EQ(take(output.read), "still");
}

TEST_F(FdConsoleBackendTest, FullPipeTakesNoMoreAndSaysWhenItDoes) {
  Ends pipe = make_pipe();
  create({}, UniqueFd(::dup(pipe.write.get())));
  const std::string chunk(50'000, 'x');
  size_t total = 0;
  size_t taken = 0;
  do {
    taken = write(chunk);
    total += taken;
  } while (taken == chunk.size());
  EXPECT_LE(total, 65536u);
  EXPECT_EQ(write("y"), 0u);
  loop_.run_until_idle();
  EXPECT_EQ(output_ready_, 0);
  size_t drained = take(pipe.read, 32768).size();
  loop_.run_until_idle();
  EXPECT_EQ(output_ready_, 1);
  EXPECT_EQ(write("y"), 1u);
  drained += take(pipe.read).size();
  EXPECT_EQ(drained, total + 1);
}

TEST_F(FdConsoleBackendTest, FlagsOfInheritedDescriptorsAreLeftAlone) {
  Ends input = make_pipe();
  Ends output = make_pipe();
  create(UniqueFd(::dup(input.read.get())), UniqueFd(::dup(output.write.get())));
  EXPECT_EQ(read(), "");
  EXPECT_EQ(write("x"), 1u);
  EXPECT_FALSE(is_nonblocking(input.read));
  EXPECT_FALSE(is_nonblocking(output.write));
}

TEST_F(FdConsoleBackendTest, ReaderWhoLeftClosesThePortAndOutputIsDiscarded) {
  Ends pipe = make_pipe();
  create({}, std::move(pipe.write));
  pipe.read.reset();
  EXPECT_EQ(write("nobody"), 6u);
  EXPECT_FALSE(backend_->is_open());
  EXPECT_EQ(host_changed_, 1);
  EXPECT_EQ(write("nobody"), 6u);
  EXPECT_EQ(host_changed_, 1);
}

TEST_F(FdConsoleBackendTest, SocketWorksInBothDirectionsAndNeverBlocks) {
  Ends sockets = make_sockets();
  create(UniqueFd(::dup(sockets.read.get())), UniqueFd(::dup(sockets.read.get())));
  put(sockets.write, "in");
  EXPECT_EQ(read(), "in");
  EXPECT_EQ(write("out"), 3u);
  EXPECT_EQ(take(sockets.write), "out");
  const std::string chunk(100'000, 'x');
  for (int i = 0; i < 100 && write(chunk) == chunk.size(); ++i) {
  }
  EXPECT_EQ(write("y"), 0u);
  while (output_ready_ == 0 && !take(sockets.write).empty()) loop_.run_until_idle();
  EXPECT_EQ(output_ready_, 1);
  EXPECT_FALSE(is_nonblocking(sockets.read));
  sockets.write.reset();
  write("z");
  write("z");
  while (!read().empty()) {
  }
  EXPECT_FALSE(backend_->is_open());
}

TEST_F(FdConsoleBackendTest, TerminalNeverBlocks) {
  int master = -1, slave = -1;
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  UniqueFd host(master), terminal(slave);
  termios raw;
  ASSERT_EQ(::tcgetattr(terminal.get(), &raw), 0);
  ::cfmakeraw(&raw);
  ASSERT_EQ(::tcsetattr(terminal.get(), TCSANOW, &raw), 0);
  create(UniqueFd(::dup(terminal.get())), UniqueFd(::dup(terminal.get())));
  EXPECT_EQ(read(), "");
  put(host, "key");
  pollfd arrived{.fd = terminal.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&arrived, 1, 10'000), 1);  // A worker of the kernel carries it across.
  loop_.run_until_idle();
  EXPECT_EQ(input_ready_, 1);
  EXPECT_EQ(read(), "key");
  const std::string chunk(30'000, 'x');
  size_t total = 0;
  for (size_t taken = chunk.size(); taken == chunk.size(); total += taken) taken = write(chunk);
  EXPECT_GT(total, 0u);
  size_t drained = 0;
  while (drained < total) drained += take(host).size();
  EXPECT_EQ(drained, total);
  EXPECT_FALSE(is_nonblocking(terminal));
}

TEST_F(FdConsoleBackendTest, FilesAreReadToTheirEndAndWritten) {
  const TempDir directory;
  const std::string path = directory.path("file");
  put(UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), "content");
  create(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)),
         UniqueFd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC)));
  EXPECT_EQ(read(), "content");
  EXPECT_EQ(write(" more"), 5u);
  EXPECT_EQ(read(), " more");
  EXPECT_EQ(read(), "");
  EXPECT_TRUE(backend_->is_open());
}

TEST_F(FdConsoleBackendTest, DevNullIsAnEmptyInputAndTakesAll) {
  create(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)),
         UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)));
  EXPECT_EQ(read(), "");
  EXPECT_EQ(write(std::string(200'000, 'x')), 200'000u);
  EXPECT_TRUE(backend_->is_open());
}

TEST_F(FdConsoleBackendTest, WithoutDescriptorsThePortIsClosed) {
  create({}, {});
  EXPECT_FALSE(backend_->is_open());
  EXPECT_EQ(read(), "");
  EXPECT_EQ(write("gone"), 4u);
}

TEST_F(FdConsoleBackendTest, DescriptorForTheWrongDirectionIsRefused) {
  Ends pipe = make_pipe();
  auto backend = FdConsoleBackend::create(
      {.home = &loop_.loop(), .input = std::move(pipe.write), .name = "test"});
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().kind(), loop::ErrorKind::kInvalidArgument);
}

TEST_F(FdConsoleBackendTest, GuestsOpenAndCloseArePassedOn) {
  create({}, {});
  backend_->guest_changed(true);
  backend_->guest_changed(false);
  EXPECT_THAT(guest_changes_, ElementsAre(true, false));
}

}  // namespace
}  // namespace skiff::devices
