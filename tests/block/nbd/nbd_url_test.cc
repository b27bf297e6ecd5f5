// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "loop/result.h"

namespace skiff::block {
namespace {

using ::testing::HasSubstr;
using Transport = NbdAddress::Transport;

NbdAddress parsed(const std::string& url) {
  auto address = parse_nbd_url(url);
  EXPECT_TRUE(address) << address.error().message();
  return address ? *address : NbdAddress{};
}

std::string refusal(const std::string& url) {
  auto address = parse_nbd_url(url);
  EXPECT_FALSE(address) << url << " was taken";
  return address ? "" : address.error().message();
}

TEST(NbdUrl, OnlyNbdSchemesAreUrls) {
  EXPECT_TRUE(is_nbd_url("nbd://host"));
  EXPECT_TRUE(is_nbd_url("nbd+unix:///?socket=s"));
  EXPECT_TRUE(is_nbd_url("nbds://host"));
  EXPECT_TRUE(is_nbd_url("nbd:host:10809")) << "to be refused with the right form";
  EXPECT_FALSE(is_nbd_url("nbd.img"));
  EXPECT_FALSE(is_nbd_url("./nbd://host"));
  EXPECT_FALSE(is_nbd_url(""));
}

TEST(NbdUrl, TcpHasHostPortAndExport) {
  const NbdAddress address = parsed("nbd://example.org:1234/my/disk");
  EXPECT_EQ(address.transport, Transport::kTcp);
  EXPECT_EQ(address.host, "example.org");
  EXPECT_EQ(address.port, "1234");
  EXPECT_EQ(address.export_name, "my/disk");
}

TEST(NbdUrl, PortAndExportMayBeLeftOut) {
  EXPECT_EQ(parsed("nbd://h").port, "10809");
  EXPECT_EQ(parsed("nbd://h").export_name, "");
  EXPECT_EQ(parsed("nbd://h/").export_name, "");
  EXPECT_EQ(parsed("nbd://h//abs").export_name, "/abs");
}

TEST(NbdUrl, BracketsHoldAnAddressWithColons) {
  EXPECT_EQ(parsed("nbd://[::1]/x").host, "::1");
  EXPECT_EQ(parsed("nbd://[::1]:99/x").port, "99");
  EXPECT_THAT(refusal("nbd://[::1/x"), HasSubstr("bracket"));
  EXPECT_THAT(refusal("nbd://[::1]99/x"), HasSubstr("port"));
}

TEST(NbdUrl, UnixHasItsSocketInTheQuery) {
  const NbdAddress address = parsed("nbd+unix:///disk?socket=/run/a%20b.sock");
  EXPECT_EQ(address.transport, Transport::kUnix);
  EXPECT_EQ(address.socket, "/run/a b.sock");
  EXPECT_EQ(address.export_name, "disk");
  EXPECT_EQ(parsed("nbd+unix://?socket=s").export_name, "");
  EXPECT_THAT(refusal("nbd+unix:///disk"), HasSubstr("names no socket"));
  EXPECT_THAT(refusal("nbd+unix://host/disk?socket=s"), HasSubstr("no host"));
  EXPECT_THAT(refusal("nbd+unix:///?socket="), HasSubstr("107"));
  EXPECT_THAT(refusal("nbd+unix:///?socket=" + std::string(108, 'a')), HasSubstr("107"));
  EXPECT_THAT(refusal("nbd+unix:///?socket=a&socket=b"), HasSubstr("twice"));
}

TEST(NbdUrl, EscapesAreTakenAndBrokenOnesAreNot) {
  EXPECT_EQ(parsed("nbd://h/a%2Fb%3fc").export_name, "a/b?c");
  EXPECT_THAT(refusal("nbd://h/a%2"), HasSubstr("broken %"));
  EXPECT_THAT(refusal("nbd://h/a%zz"), HasSubstr("broken %"));
  EXPECT_THAT(refusal("nbd://h/a%00b"), HasSubstr("NUL"));
  EXPECT_THAT(refusal("nbd://h/" + std::string(4097, 'a')), HasSubstr("4096"));
}

TEST(NbdUrl, WhatIsWrongIsNamedWithTheRightForm) {
  EXPECT_THAT(refusal("nbd:host:10809"), HasSubstr("nbd://HOST"));
  EXPECT_THAT(refusal("nbd:///disk"), HasSubstr("names no host"));
  EXPECT_THAT(refusal("nbd://h:0/"), HasSubstr("port"));
  EXPECT_THAT(refusal("nbd://h:65536/"), HasSubstr("port"));
  EXPECT_THAT(refusal("nbd://h:000080/"), HasSubstr("port"));
  EXPECT_THAT(refusal("nbd://h:/"), HasSubstr("port"));
  EXPECT_THAT(refusal("nbd://user@h/"), HasSubstr("users"));
  EXPECT_THAT(refusal("nbd://h/?tls=1"), HasSubstr("tls=1"));
  EXPECT_THAT(refusal("nbd://h/?socket=s"), HasSubstr("nbd+unix only"));
  EXPECT_THAT(refusal("nbd://h/a#b"), HasSubstr("%23"));
}

TEST(NbdUrl, TlsAndVsockAreUnsupportedAndSaySo) {
  for (const char* url : {"nbds://h/", "nbds+unix:///?socket=s", "nbd+vsock://2/"}) {
    auto address = parse_nbd_url(url);
    ASSERT_FALSE(address) << url;
    EXPECT_EQ(address.error().kind(), loop::ErrorKind::kUnsupported);
  }
  EXPECT_THAT(refusal("nbds://h/"), HasSubstr("TLS"));
}

}  // namespace
}  // namespace skiff::block
