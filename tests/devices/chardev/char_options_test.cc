// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/char_options.h"

#include <gmock/gmock.h>

#include <string>

#include "loop/result.h"

namespace skiff::devices {
namespace {

using Kind = CharConfig::Kind;
using ::testing::HasSubstr;

TEST(CharOptionsTest, EachKindIsUnderstood) {
  EXPECT_EQ(*parse_char_option("stdio"), (CharConfig{Kind::kStdio, ""}));
  EXPECT_EQ(*parse_char_option("null"), (CharConfig{Kind::kNull, ""}));
  EXPECT_EQ(*parse_char_option("file:/tmp/a:b"), (CharConfig{Kind::kFile, "/tmp/a:b"}));
  EXPECT_EQ(*parse_char_option("pty"), (CharConfig{Kind::kPty, ""}));
  EXPECT_EQ(*parse_char_option("pty:/run/vm.tty"), (CharConfig{Kind::kPty, "/run/vm.tty"}));
  EXPECT_EQ(*parse_char_option("unix:/run/vm.sock"), (CharConfig{Kind::kUnix, "/run/vm.sock"}));
}

TEST(CharOptionsTest, WrongTextIsNamedTogetherWithWhatIsAllowed) {
  for (const char* text : {"", "serial", "STDIO", "stdio:", "null:x", "file", "file:", "unix",
                           "unix:", "pty:", ":x", "tcp:1234"}) {
    const auto config = parse_char_option(text);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().kind(), loop::ErrorKind::kInvalidArgument);
    EXPECT_THAT(config.error().message(), HasSubstr("'" + std::string(text) + "'"));
    EXPECT_THAT(config.error().message(), HasSubstr("file:PATH"));
  }
}

}  // namespace
}  // namespace skiff::devices
