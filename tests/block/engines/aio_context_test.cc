// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/aio_context.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/aio_abi.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

TEST(AioContextTest, MoreThanTheSystemHasNamesTheLimitToRaise) {
  const auto context = AioContext::create(uint32_t{1} << 22);
  ASSERT_FALSE(context);
  EXPECT_EQ(context.error().kind(), loop::ErrorKind::kExhausted);
  EXPECT_EQ(context.error().os_error(), EAGAIN);
  EXPECT_NE(context.error().message().find("fs.aio-max-nr"), std::string::npos);
}

// A buffered read is over when io_submit() returns, so nothing here has to be waited for.
TEST(AioContextTest, CompletionsAreTakenInOrderAndRoundTheEndOfTheRing) {
  const TempDir dir;
  const auto content = pattern(64 * 1024);
  const loop::UniqueFd fd(::open(dir.make_file("file", content).c_str(), O_RDONLY | O_CLOEXEC));
  auto context = AioContext::create(16);
  ASSERT_TRUE(context) << context.error().message();
  std::array<io_event, 16> events;
  EXPECT_EQ(context->take(events), 0u);
  uint64_t next = 0;
  // The kernel's ring is larger than asked for, by some factor of the CPUs.
  for (int round = 0; round < 500; ++round) {
    std::array<iocb, 7> controls = {};
    std::array<iocb*, 7> batch = {};
    std::array<std::array<std::byte, 512>, 7> buffers;
    for (size_t i = 0; i < batch.size(); ++i) {
      controls[i].aio_data = next + i;
      controls[i].aio_lio_opcode = IOCB_CMD_PREAD;
      controls[i].aio_fildes = static_cast<uint32_t>(fd.get());
      controls[i].aio_buf = reinterpret_cast<uint64_t>(buffers[i].data());
      controls[i].aio_nbytes = 512;
      controls[i].aio_offset = static_cast<int64_t>((next + i) % 128 * 512);
      batch[i] = &controls[i];
    }
    ASSERT_EQ(context->submit(batch), 7);
    ASSERT_EQ(context->take(std::span(events).first(3)), 3u);
    ASSERT_EQ(context->take(std::span(events).subspan(3)), 4u);
    for (size_t i = 0; i < batch.size(); ++i) {
      ASSERT_EQ(events[i].data, next + i);
      ASSERT_EQ(events[i].res, 512);
      const auto at = content.begin() + static_cast<ptrdiff_t>((next + i) % 128 * 512);
      ASSERT_TRUE(std::equal(buffers[i].begin(), buffers[i].end(), at));
    }
    next += batch.size();
  }
}

}  // namespace
}  // namespace skiff::block
