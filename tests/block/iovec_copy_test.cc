// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/iovec_copy.h"

#include <gtest/gtest.h>

#include <array>
#include <span>
#include <string>

namespace skiff::block {
namespace {

class IovecCopyTest : public ::testing::Test {
 protected:
  std::string scattered_ = "abcdefgh";
  std::array<iovec, 4> iov_ = {iovec{scattered_.data(), 3}, iovec{scattered_.data() + 3, 0},
                               iovec{scattered_.data() + 3, 1}, iovec{scattered_.data() + 4, 4}};
};

TEST_F(IovecCopyTest, GathersAcrossSegmentsFromAnyPlace) {
  std::string into(4, '.');
  EXPECT_EQ(copy_from_iovec(iov_, 2, std::as_writable_bytes(std::span(into))), 4u);
  EXPECT_EQ(into, "cdef");
}

TEST_F(IovecCopyTest, ScattersAcrossSegments) {
  const std::string from = "1234";
  EXPECT_EQ(copy_to_iovec(iov_, 1, std::as_bytes(std::span(from))), 4u);
  EXPECT_EQ(scattered_, "a1234fgh");
}

TEST_F(IovecCopyTest, StopsWhereTheSegmentsEnd) {
  std::string into(4, '.');
  EXPECT_EQ(copy_from_iovec(iov_, 6, std::as_writable_bytes(std::span(into))), 2u);
  EXPECT_EQ(into, "gh..");
  EXPECT_EQ(copy_from_iovec(iov_, 100, std::as_writable_bytes(std::span(into))), 0u);
}

}  // namespace
}  // namespace skiff::block
