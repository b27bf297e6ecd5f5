// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/disk_opener.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "block/open_image.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/worker_pool.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/disk_image.h"

namespace skiff::vmm {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::Task;

struct DiskOpener::Opening : loop::WorkItem {
  DiskOpener* opener = nullptr;
  DiskConfig config;
  block::ImageOptions options;
  loop::WorkerPool* pool = nullptr;
  Opened opened;
  Image image = Error(ErrorKind::kCancelled, "Not tried");
};

DiskOpener::DiskOpener(loop::EventLoop& main_loop) : home_(main_loop) {}

DiskOpener::~DiskOpener() { SKIFF_CHECK(openings_.empty()); }

Result<void> DiskOpener::check(const DiskConfig& config) const {
  if (stop_.stop_requested()) return Error(ErrorKind::kCancelled, "The machine is about to end");
  const bool is_known =
      !config.serial.empty() && std::ranges::any_of(openings_, [&config](const auto& other) {
        return other->config.serial == config.serial;
      });
  if (is_known)
    return Error(ErrorKind::kBusy,
                 fmt::format("Disk {}: a disk with the serial number {} is being added already; "
                             "wait for the answer",
                             config.path, config.serial));
  if (openings_.size() < kOpeningsMax) return {};
  return Error(ErrorKind::kBusy,
               fmt::format("Disk {}: {} disks are being opened already; wait until one of them is, "
                           "or has failed",
                           config.path, openings_.size()));
}

void DiskOpener::open(const DiskConfig& config, loop::WorkerPool& pool, Opened opened) {
  home_.assert_here();
  Result<void> possible = check(config);
  if (possible && !waiters_) {
    // Not the disks' own workers: those do part of what is waited for here.
    auto waiters =
        loop::WorkerPool::create({.name = "opener", .min_workers = 1, .max_workers = kOpeningsMax});
    if (waiters)
      waiters_ = *std::move(waiters);
    else
      possible = waiters.error();
  }
  if (!possible) {
    return home_.loop().post(
        [opened = std::move(opened), error = possible.error()] { opened(error); });
  }
  auto& opening = *openings_.emplace_back(std::make_unique<Opening>());
  opening.opener = this;
  opening.config = config;
  opening.options = image_options(config);
  opening.options.stop = stop_.get_token();
  opening.pool = &pool;
  opening.opened = std::move(opened);
  opening.run = [](loop::WorkItem& item) {
    auto& self = static_cast<Opening&>(item);
    self.image = block::open_image(self.options, *self.pool);
  };
  opening.done = [](loop::WorkItem& item) {
    auto& self = static_cast<Opening&>(item);
    self.opener->finish(self);
  };
  waiters_->submit(home_.loop(), opening);
}

void DiskOpener::finish(Opening& opening) {
  home_.assert_here();
  const auto found = std::ranges::find(openings_, &opening, &std::unique_ptr<Opening>::get);
  SKIFF_CHECK(found != openings_.end());
  const std::unique_ptr<Opening> ended = std::move(*found);
  openings_.erase(found);
  ended->opened(ended->image ? std::move(ended->image)
                             : Image(ended->image.error().with_context("disk")));
  if (one_ended_ != nullptr) std::exchange(one_ended_, nullptr)->set(true);
}

void DiskOpener::give_up() {
  home_.assert_here();
  stop_.request_stop();
}

Task<void> DiskOpener::wait_until_idle(std::string& waiting_for) {
  home_.assert_here();
  while (!openings_.empty()) {
    waiting_for = fmt::format("disk {}, which is being opened", openings_.front()->config.path);
    loop::OneShot<bool> one_ended(home_.loop());
    one_ended_ = &one_ended;
    co_await one_ended;
  }
}

}  // namespace skiff::vmm
