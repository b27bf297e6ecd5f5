// SPDX-License-Identifier: GPL-2.0-or-later
// Every kind of backend, against real descriptors: pipes, files, ptys, sockets.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "devices/chardev/char_options.h"
#include "devices/chardev/char_port.h"
#include "devices/chardev/raw_terminal.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"

namespace skiff::devices {
namespace {

using Kind = CharConfig::Kind;
using ::testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int kPatienceMs = 10'000;

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

void write_all(int fd, std::string_view text) {
  ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

// What comes within reason, up to `size` bytes.
std::string read_some(int fd, size_t size) {
  std::string text(size, '\0');
  size_t count = 0;
  while (count < size) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, kPatienceMs) != 1) break;
    const ssize_t got = ::read(fd, text.data() + count, size - count);
    if (got <= 0) break;
    count += static_cast<size_t>(got);
  }
  text.resize(count);
  return text;
}

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    out.reset(ends[0]);
    in.reset(ends[1]);
  }
  loop::UniqueFd out;  // To read from.
  loop::UniqueFd in;
};

struct Terminal {
  Terminal() {
    master.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    std::array<char, 64> path{};
    EXPECT_EQ(::grantpt(master.get()), 0);
    EXPECT_EQ(::unlockpt(master.get()), 0);
    EXPECT_EQ(::ptsname_r(master.get(), path.data(), path.size()), 0);
    slave.reset(::open(path.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  }
  bool is_raw() const {
    termios mode{};
    EXPECT_EQ(::tcgetattr(slave.get(), &mode), 0);
    return (mode.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  }
  loop::UniqueFd master;  // The user.
  loop::UniqueFd slave;   // Our stdin and stdout.
};

class CharBackendsTest : public ::testing::Test {
 protected:
  loop::Result<void> open(const CharConfig& config, const StdioOptions& stdio = {}) {
    auto backend = create_char_backend(loop_, config, stdio);
    if (!backend) return backend.error();
    port_.emplace(loop_, *std::move(backend));
    loop_.run_until_idle();
    return {};
  }
  void open_stdio(int input, int output) {
    ASSERT_TRUE(open({Kind::kStdio, ""}, {.input_fd = input,
                                          .output_fd = output,
                                          .on_escape = [this](char key) { keys_ += key; },
                                          .help = "HELP"}));
  }
  std::string read_guest(size_t size) {
    std::string text(size, '\0');
    size_t count = 0;
    while (count < size) {
      const size_t got =
          port_->read({reinterpret_cast<uint8_t*>(text.data()) + count, size - count});
      count += got;
      loop_.run_until_idle();
      if (got == 0 && port_->readable_bytes() == 0) break;
    }
    text.resize(count);
    return text;
  }
  // Until the kernel has carried something over, which for a pty is another thread's work.
  void turn_until(const std::function<bool()>& done) {
    for (int i = 0; i < kPatienceMs && !done(); ++i) {
      loop_.run_until_idle();
      if (!done()) ::poll(nullptr, 0, 1);
    }
    EXPECT_TRUE(done());
  }

  loop::ManualLoop loop_;
  const TempDir dir_;
  const std::filesystem::path folder_ = dir_.path();
  std::optional<CharPort> port_;
  std::string keys_;
};

TEST_F(CharBackendsTest, PipeCarriesBothWaysAndKeepsTheParentsFlags) {
  Pipe to_guest;
  Pipe from_guest;
  open_stdio(to_guest.out.get(), from_guest.in.get());
  write_all(to_guest.in.get(), "in\x01x");  // No terminal, so no escape key.
  loop_.run_until_idle();
  EXPECT_EQ(read_guest(10), "in\x01x");
  EXPECT_EQ(keys_, "");
  port_->write(bytes("out"));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(from_guest.out.get(), 3), "out");
  EXPECT_EQ(::fcntl(to_guest.out.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(from_guest.in.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(CharBackendsTest, FullPipeHoldsTheGuestBackAndLosesNothing) {
  Pipe from_guest;
  open_stdio(-1, from_guest.in.get());
  std::string sent;
  for (int i = 0; i < 100'000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    const size_t taken = port_->write(bytes(line));
    sent += line.substr(0, taken);
    loop_.run_until_idle();  // Never blocks, or the test hangs here.
    if (taken < line.size()) break;
  }
  EXPECT_GT(port_->counters().refused_bytes, 0u);
  std::string got;
  while (got.size() < sent.size()) {
    const std::string piece = read_some(from_guest.out.get(), 4096);
    ASSERT_FALSE(piece.empty());
    got += piece;
    loop_.run_until_idle();
    if (sent.size() - got.size() < 4096) {
      got += read_some(from_guest.out.get(), sent.size() - got.size());
    }
  }
  EXPECT_EQ(got, sent);
}

TEST_F(CharBackendsTest, ReaderThatGoesAwayDoesNotStopTheGuestOrTheProcess) {
  Pipe from_guest;
  open_stdio(-1, from_guest.in.get());
  from_guest.out.reset();
  const std::string flood(60'000, 'x');
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(port_->write(bytes(flood)), flood.size());
    loop_.run_until_idle();
  }
}

TEST_F(CharBackendsTest, ClosedStdinAndStdoutAreNoErrors) {
  open_stdio(-1, -1);
  const std::string flood(60'000, 'x');
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(port_->write(bytes(flood)), flood.size());
    loop_.run_until_idle();
  }
  EXPECT_EQ(port_->readable_bytes(), 0u);
}

TEST_F(CharBackendsTest, WriterThatLeavesHasItsInputDelivered) {
  Pipe to_guest;
  write_all(to_guest.in.get(), "all of it");
  to_guest.in.reset();
  open_stdio(to_guest.out.get(), -1);
  EXPECT_EQ(read_guest(100), "all of it");
  EXPECT_FALSE(loop_.loop().run_once(loop::EventLoop::Wait::kNo));  // No spinning at the end.
}

TEST_F(CharBackendsTest, InputThatTheGuestDoesNotTakeStaysInThePipe) {
  Pipe to_guest;
  open_stdio(to_guest.out.get(), -1);
  std::string sent;
  for (int i = 0; i < 3000; ++i) sent += "input " + std::to_string(i) + "\n";
  write_all(to_guest.in.get(), sent);
  loop_.run_until_idle();
  EXPECT_EQ(port_->readable_bytes(), 4096u);
  EXPECT_EQ(read_guest(sent.size()), sent);
}

TEST_F(CharBackendsTest, RegularFileAsStdinArrivesWhole) {
  std::string content;
  for (int i = 0; i < 3000; ++i) content += "file line " + std::to_string(i) + "\n";
  std::ofstream(folder_ / "input") << content;
  const loop::UniqueFd input(::open((folder_ / "input").c_str(), O_RDONLY | O_CLOEXEC));
  open_stdio(input.get(), -1);
  EXPECT_EQ(port_->readable_bytes(), 4096u);
  EXPECT_EQ(read_guest(content.size()), content);
  EXPECT_FALSE(loop_.loop().run_once(loop::EventLoop::Wait::kNo));
}

TEST_F(CharBackendsTest, DevNullOnBothEndsIsQuiet) {
  const loop::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  open_stdio(null.get(), null.get());
  EXPECT_EQ(port_->write(bytes("gone")), 4u);
  loop_.run_until_idle();
  EXPECT_EQ(port_->pending_output_bytes(), 0u);
}

TEST_F(CharBackendsTest, RegularFileAsStdoutIsAppendedWhereTheShellLeftIt) {
  const loop::UniqueFd output(
      ::open((folder_ / "out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  write_all(output.get(), "before ");
  open_stdio(-1, output.get());
  port_->write(bytes("guest "));
  loop_.run_until_idle();
  write_all(output.get(), "after");
  std::ifstream file(folder_ / "out");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "before guest after");
}

TEST_F(CharBackendsTest, TerminalIsRawWhileThePortLivesAndRestoredAfterwards) {
  const Terminal terminal;
  ASSERT_FALSE(terminal.is_raw());
  open_stdio(terminal.slave.get(), terminal.slave.get());
  EXPECT_TRUE(terminal.is_raw());
  EXPECT_EQ(::fcntl(terminal.slave.get(), F_GETFL) & O_NONBLOCK, 0);
  port_->write(bytes("login: "));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(terminal.master.get(), 7), "login: ");
  port_.reset();
  EXPECT_FALSE(terminal.is_raw());
}

TEST_F(CharBackendsTest, EscapeKeyCommandsReachTheMachineAndTheRestTheGuest) {
  const Terminal terminal;
  open_stdio(terminal.slave.get(), terminal.slave.get());
  write_all(terminal.master.get(),
            "a\x03\x01\x01"
            "b\x01h\x01"
            "c\x01x");
  turn_until([this] { return keys_.size() == 2; });
  EXPECT_EQ(keys_, "cx");
  EXPECT_EQ(read_guest(10),
            "a\x03\x01"
            "b");
  EXPECT_EQ(read_some(terminal.master.get(), 4), "HELP");
}

TEST_F(CharBackendsTest, GuestThatReadsNothingCanStillBeQuit) {
  const Terminal terminal;
  open_stdio(terminal.slave.get(), terminal.slave.get());
  const std::string pasted(1000, 'p');
  for (size_t sent = 0; sent < 10'000; sent += pasted.size()) {
    write_all(terminal.master.get(), pasted);
    loop_.run_until_idle();
  }
  write_all(terminal.master.get(), "\x01x");
  turn_until([this] { return keys_ == "x"; });
  EXPECT_EQ(read_guest(20'000).size(), 10'000u);  // And nothing was lost by it.
}

TEST_F(CharBackendsTest, OneTerminalServesOnePort) {
  const Terminal terminal;
  open_stdio(terminal.slave.get(), terminal.slave.get());
  const auto second =
      create_char_backend(loop_, {Kind::kStdio, ""}, {.input_fd = terminal.slave.get()});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), loop::ErrorKind::kBusy);
}

TEST_F(CharBackendsTest, CrashGivesTheTerminalBack) {
  const Terminal terminal;
  for (const int signal_number : {SIGSEGV, SIGABRT}) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (const int crash : {SIGSEGV, SIGABRT})
        ::signal(crash, SIG_DFL);  // No sanitizer's report.
      auto raw = RawTerminal::create(terminal.slave.get());
      if (!raw || !terminal.is_raw()) ::_exit(1);
      ::raise(signal_number);
      ::_exit(2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(WTERMSIG(status), signal_number);
    EXPECT_FALSE(terminal.is_raw());
  }
}

TEST_F(CharBackendsTest, TerminalThatAShellPutInOrderMeanwhileIsMadeRawAgain) {
  const Terminal terminal;
  termios cooked{};
  ASSERT_EQ(::tcgetattr(terminal.slave.get(), &cooked), 0);
  auto raw = RawTerminal::create(terminal.slave.get());
  ASSERT_TRUE(raw);
  ASSERT_EQ(::tcsetattr(terminal.slave.get(), TCSANOW, &cooked), 0);
  RawTerminal::make_raw_again();
  EXPECT_TRUE(terminal.is_raw());
  raw->reset();
  RawTerminal::make_raw_again();
  EXPECT_FALSE(terminal.is_raw());
}

TEST_F(CharBackendsTest, FileIsTruncatedAndWritten) {
  std::ofstream(folder_ / "log") << "old content that is long";
  ASSERT_TRUE(open({Kind::kFile, folder_ / "log"}));
  port_->write(bytes("new"));
  loop_.run_until_idle();
  std::ifstream file(folder_ / "log");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "new");
}

TEST_F(CharBackendsTest, FileThatCannotBeWrittenIsOneClearError) {
  EXPECT_THAT(open({Kind::kFile, folder_}).error().message(), HasSubstr(folder_.string()));
  EXPECT_EQ(open({Kind::kFile, folder_ / "no/such"}).error().kind(), loop::ErrorKind::kNotFound);
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(open({Kind::kFile, folder_ / "fifo"}).error().message(), HasSubstr("nobody reads"));
}

TEST_F(CharBackendsTest, FullDiskDiscardsWhatFollows) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "No /dev/full here";
  ASSERT_TRUE(open({Kind::kFile, "/dev/full"}));
  const std::string flood(60'000, 'x');
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(port_->write(bytes(flood)), flood.size());
    loop_.run_until_idle();
  }
}

class SocketTest : public CharBackendsTest {
 protected:
  std::string path() const { return folder_ / "port.sock"; }
  loop::UniqueFd connect() {
    loop::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    loop_.run_until_idle();
    return fd;
  }
};

TEST_F(SocketTest, ClientGetsWhatWasSaidBeforeItCameAndTalks) {
  ASSERT_TRUE(open({Kind::kUnix, path()}));
  port_->write(bytes("boot log"));
  loop_.run_until_idle();
  const loop::UniqueFd client = connect();
  EXPECT_EQ(read_some(client.get(), 8), "boot log");
  write_all(client.get(), "root");
  loop_.run_until_idle();
  EXPECT_EQ(read_guest(10), "root");
}

TEST_F(SocketTest, ClientThatReadsNothingHoldsTheGuestBackUntilItLeaves) {
  ASSERT_TRUE(open({Kind::kUnix, path()}));
  loop::UniqueFd client = connect();
  const std::string flood(60'000, 'x');
  for (int i = 0; i < 100; ++i) {
    port_->write(bytes(flood));
    loop_.run_until_idle();
  }
  EXPECT_EQ(port_->write(bytes("y")), 0u);
  client.reset();
  loop_.run_until_idle();
  EXPECT_EQ(port_->write(bytes("y")), 1u);
}

TEST_F(SocketTest, ClientsComeOneAfterTheOther) {
  ASSERT_TRUE(open({Kind::kUnix, path()}));
  loop::UniqueFd first = connect();
  const loop::UniqueFd second = connect();
  port_->write(bytes("to the first"));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(first.get(), 12), "to the first");
  write_all(second.get(), "second's input");
  loop_.run_until_idle();
  EXPECT_EQ(port_->readable_bytes(), 0u);  // It waits.
  first.reset();
  loop_.run_until_idle();
  EXPECT_EQ(read_guest(20), "second's input");
  port_->write(bytes("to the second"));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(second.get(), 13), "to the second");
}

TEST_F(SocketTest, ClientThatHasSaidAllStillHearsTheAnswer) {
  ASSERT_TRUE(open({Kind::kUnix, path()}));
  loop::UniqueFd client = connect();
  write_all(client.get(), "question");
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  loop_.run_until_idle();
  EXPECT_EQ(read_guest(20), "question");
  port_->write(bytes("answer"));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(client.get(), 6), "answer");
  client.reset();
  loop_.advance_ns(kSecondNs);
  const loop::UniqueFd next = connect();
  port_->write(bytes("hello"));
  loop_.run_until_idle();
  EXPECT_EQ(read_some(next.get(), 5), "hello");
}

TEST_F(SocketTest, FileGoesWithThePortAndAnotherPortIsRefusedMeanwhile) {
  ASSERT_TRUE(open({Kind::kUnix, path()}));
  const auto second = create_char_backend(loop_, {Kind::kUnix, path()});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), loop::ErrorKind::kBusy);
  port_.reset();
  EXPECT_FALSE(std::filesystem::exists(path()));
}

class PtyTest : public CharBackendsTest {
 protected:
  loop::UniqueFd open_slave() {
    loop::UniqueFd slave(::open((folder_ / "tty").c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(static_cast<bool>(slave));
    loop_.advance_ns(kSecondNs);
    return slave;
  }
};

TEST_F(PtyTest, WhoOpensItGetsWhatWasSaidBeforeAndTalksWithoutEcho) {
  ASSERT_TRUE(open({Kind::kPty, folder_ / "tty"}));
  EXPECT_THAT(port_->description(), HasSubstr("/dev/pts/"));
  port_->write(bytes("boot\n"));
  loop_.advance_ns(kSecondNs);
  EXPECT_EQ(port_->pending_output_bytes(), 5u);  // Nobody there.
  const loop::UniqueFd slave = open_slave();
  EXPECT_EQ(read_some(slave.get(), 5), "boot\n");
  write_all(slave.get(), "ls\r\x03");
  turn_until([this] { return port_->readable_bytes() == 4; });
  EXPECT_EQ(read_guest(10), "ls\r\x03");
}

TEST_F(PtyTest, UserMayLeaveAndComeBack) {
  ASSERT_TRUE(open({Kind::kPty, folder_ / "tty"}));
  for (int i = 0; i < 3; ++i) {
    loop::UniqueFd slave = open_slave();
    port_->write(bytes("hello"));
    loop_.run_until_idle();
    EXPECT_EQ(read_some(slave.get(), 5), "hello");
    write_all(slave.get(), "bye");
    turn_until([this] { return port_->readable_bytes() == 3; });
    EXPECT_EQ(read_guest(3), "bye");
    slave.reset();
    loop_.advance_ns(kSecondNs);
    EXPECT_FALSE(loop_.loop().run_once(loop::EventLoop::Wait::kNo));  // No spinning on the hang-up.
  }
}

TEST_F(PtyTest, LinkReplacesAnOldLinkButNothingElseAndGoesWithThePort) {
  std::filesystem::create_symlink("/dev/pts/99999", folder_ / "tty");
  ASSERT_TRUE(open({Kind::kPty, folder_ / "tty"}));
  EXPECT_EQ("pty " + std::filesystem::read_symlink(folder_ / "tty").string(), port_->description());
  port_.reset();
  EXPECT_FALSE(std::filesystem::is_symlink(folder_ / "tty"));
  std::ofstream(folder_ / "tty") << "precious";
  EXPECT_EQ(open({Kind::kPty, folder_ / "tty"}).error().kind(), loop::ErrorKind::kBusy);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "tty"));
}

}  // namespace
}  // namespace skiff::devices
