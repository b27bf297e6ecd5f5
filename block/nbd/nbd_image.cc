// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_image.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/nbd/nbd_channel.h"
#include "block/nbd/nbd_home.h"
#include "block/nbd/nbd_url.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread_annotations.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Result;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kMillisecondNs = 1'000'000;

// Where the main loop waits, at start and at the end only, for the home loop.
template <typename T>
class Meeting {
 public:
  void set(T value) {
    const loop::MutexLock lock(mutex_);
    value_ = std::move(value);
    changed_.notify_one();
  }
  T wait() {
    const loop::MutexLock lock(mutex_);
    while (!value_) changed_.wait(mutex_);
    return *std::move(value_);
  }

 private:
  loop::Mutex mutex_;
  loop::ConditionVariable changed_;
  std::optional<T> value_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace

Result<std::unique_ptr<NbdImage>> NbdImage::open(const Options& options, loop::WorkerPool& pool) {
  std::unique_ptr<NbdImage> image(new NbdImage(options));
  SKIFF_RETURN_IF_ERROR(image->start(pool));
  image->say_how();
  return image;
}

Result<void> NbdImage::start(loop::WorkerPool& pool) {
  auto address = parse_nbd_url(options_.url);
  if (!address) return address.error();
  auto cancel = loop::EventNotifier::create();
  if (!cancel) return cancel.error();
  auto thread = loop::IoThread::create({.name = "nbd"});
  if (!thread) return thread.error();
  thread_ = *std::move(thread);

  NbdHome::Options home = {
      .address = *std::move(address),
      .name = options_.url,
      .read_only = options_.access == WriteAccess::kReadOnly,
      .reconnect_delay_ns = options_.patience.reconnect_delay_s * kSecondNs,
      .connect_timeout_ns = options_.patience.connect_timeout_ms * kMillisecondNs,
      .reply_timeout_ns = options_.patience.reply_timeout_s * kSecondNs};
  Meeting<Result<NbdHome::Opened>> meeting;
  thread_->loop().post([&] {
    home_ = std::make_unique<NbdHome>(thread_->loop(), pool, *std::move(cancel), std::move(home));
    home_->open([&](Result<NbdHome::Opened> opened) { meeting.set(std::move(opened)); });
  });
  auto opened = meeting.wait();
  if (!opened) return opened.error().with_context("Opening NBD disk", options_.url);
  facts_ = opened->facts;
  limits_ = facts_.limits();
  first_bytes_ = std::move(opened->first_bytes);
  return {};
}

NbdImage::~NbdImage() {
  if (!thread_) return;
  Meeting<bool> meeting;
  thread_->loop().post([&] {
    if (!home_) return meeting.set(true);
    home_->close([&] {
      // Not inside its own callback.
      thread_->loop().post([&] {
        home_.reset();
        meeting.set(true);
      });
    });
  });
  meeting.wait();
}

void NbdImage::say_how() const {
  SKIFF_LOG(kInfo, "Disk {}: {} bytes; {}", options_.url, facts_.size_bytes,
            facts_.multi_conn
                ? "the server takes several connections at once: one for each queue, and one for "
                  "flushes and emergencies"
                : "the server takes one connection at a time: all queues share it");
  if (!facts_.flush && !facts_.read_only) {
    SKIFF_LOG(kWarn,
              "Disk {}: the server has no flush command; what it acknowledges is as safe as it "
              "makes it, and may be lost if it dies",
              options_.url);
  }
}

Result<std::unique_ptr<BlockChannel>> NbdImage::open_channel(loop::EventLoop& loop) {
  return std::unique_ptr<BlockChannel>(std::make_unique<NbdChannel>(
      *home_, loop,
      NbdChannel::Options{.name = options_.url,
                          .reply_timeout_ns = options_.patience.reply_timeout_s * kSecondNs}));
}

}  // namespace skiff::block
