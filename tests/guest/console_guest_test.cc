// SPDX-License-Identifier: GPL-2.0-or-later
// Serial ports and consoles: what goes in at one end comes out at the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "loop/unique_fd.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::HasSubstr;

std::string read_line(const loop::UniqueFd& fd) {
  std::string line;
  char byte = 0;
  constexpr int kSilenceMsMax = 60'000;
  pollfd ready = {fd.get(), POLLIN, 0};
  while (::poll(&ready, 1, kSilenceMsMax) == 1 && ::read(fd.get(), &byte, 1) == 1 && byte != '\n')
    line += byte;
  return line;
}

TEST(Serial, LosesNothingOfALongPaste) {
  std::string paste;
  for (int line = 0; paste.size() < 65536; ++line) paste += std::to_string(line) + "\n";
  paste.resize(65536);
  const ScriptInitrd initrd(R"sh(
stty -F /dev/ttyS0 raw -echo
echo READY
head -c 65536 </dev/ttyS0 | md5sum
poweroff -f
)sh");
  SkiffProcess skiff(script_guest(initrd));
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  skiff.write(paste);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr(md5_of_text(paste)));
}

// Typed before anybody listens: it waits in Skiff, not in a chip that the driver clears.
TEST(Serial, KeepsWhatWasTypedBeforeTheGuestWasUp) {
  const ScriptInitrd initrd("read line; echo GOT $line; poweroff -f");
  SkiffProcess skiff(script_guest(initrd));
  skiff.write("typed ahead\n");
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("GOT typed ahead"));
}

TEST(Serial, WorksWithoutStandardStreams) {
  const ScriptInitrd initrd("echo nobody reads this; poweroff -f");
  const Outcome outcome =
      run_skiff(script_guest(initrd), {.standard_streams_closed = true, .user = {}});
  EXPECT_EQ(outcome.status, 0);
}

TEST(Serial, FourPortsGoToFourPlaces) {
  const ScratchFile second("com2");
  const ScratchFile third("com3");
  const ScratchFile fourth("com4");
  const ScriptInitrd initrd(R"sh(
for i in 1 2 3; do
  stty -F /dev/ttyS$i raw
  echo port $i > /dev/ttyS$i
done
poweroff -f
)sh");
  const Outcome outcome =
      run_skiff(script_guest(initrd) + Arguments{"--serial", "file:" + second.path(), "--serial",
                                                 "file:" + third.path(), "--serial",
                                                 "file:" + fourth.path()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(second.read(0, 100), "port 1\n");
  EXPECT_EQ(third.read(0, 100), "port 2\n");
  EXPECT_EQ(fourth.read(0, 100), "port 3\n");
}

// Named ports over unix sockets, both ways; hvc0 as a console of its own.
TEST(Console, PortsAreFoundByNameAndCarryBytesBothWays) {
  const ScratchPath first("port1");
  const ScratchPath second("port2");
  const ScratchFile terminal("hvc0");
  const Outcome refused = run_skiff(exec_guest("true") + Arguments{"--console", "udp:5,name=a"});
  EXPECT_EQ(refused.status, 120);

  SkiffProcess skiff(exec_guest(R"sh(
for p in /sys/class/virtio-ports/*; do
  case $(cat $p/name) in
    org.first) exec 3<>/dev/${p##*/} ;;
    org.second) exec 4<>/dev/${p##*/} ;;
  esac
done
echo on the terminal > /dev/hvc0
echo READY
read go
until read line <&3; do sleep 0.1; done
echo "second hears: $line" >&4
until read line <&4; do sleep 0.1; done
echo "first hears: $line" >&3
read done
exit 6
)sh") + Arguments{"--console", "file:" + terminal.path(), "--console",
                  "unix:" + first.path() + ",name=org.first", "--console",
                  "unix:" + second.path() + ",name=org.second"});
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  const loop::UniqueFd first_end = connect_unix(first.path());
  const loop::UniqueFd second_end = connect_unix(second.path());
  // A port without a peer is at its end, and the guest may learn of the peer after it got this.
  skiff.write("go\n");
  ASSERT_EQ(::send(first_end.get(), "ping\n", 5, MSG_NOSIGNAL), 5);
  EXPECT_EQ(read_line(second_end), "second hears: ping");
  ASSERT_EQ(::send(second_end.get(), "pong\n", 5, MSG_NOSIGNAL), 5);
  EXPECT_EQ(read_line(first_end), "first hears: pong");
  skiff.write("done\n");
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 6) << outcome.err;
  EXPECT_THAT(terminal.read(0, 1000), HasSubstr("on the terminal"));
}

}  // namespace
}  // namespace skiff::guest
