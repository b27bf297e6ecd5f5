// SPDX-License-Identifier: GPL-2.0-or-later
// ServedDisk: a disk of 64 sectors behind Skiff's own back end, on threads of its own.
//
// Thread: the test's; destroyed there, when its requests are done. Ownership: owns everything.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "block/testing/fake_channel.h"
#include "devices/vhost_user/backend.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"

namespace skiff::devices {

// A disk that is served from another thread, as from another process.
class ServedDisk {
 public:
  static constexpr uint16_t kQueueSize = 16;

  explicit ServedDisk(std::string socket) : socket_(std::move(socket)) {
    on_main([this] { start(); });
  }
  ~ServedDisk() {
    wait([this](std::function<void()> done) { backend_->stop(std::move(done)); });
    on_main([this] {
      backend_.reset();
      device_.reset();
    });
  }
  VirtioBlk& device() { return *device_; }
  block::FakeBackend& image() { return image_; }

 private:
  void start() {
    device_ = *VirtioBlk::create({.queues = {{.loop = &io_->loop()}, {.loop = &io_->loop()}},
                                  .memory = &table_.guest(),
                                  .image = &image_,
                                  .queue_size = kQueueSize});
    backend_ = *VhostUserBackend::create({.main_loop = &main_->loop(),
                                          .socket = socket_,
                                          .name = "disk",
                                          .device = device_.get(),
                                          .memory = &table_,
                                          .homes = {&io_->loop(), &io_->loop()}});
  }
  void on_main(const std::function<void()>& work) {
    wait([&](const std::function<void()>& done) {
      work();
      done();
    });
  }
  // Begins something on the main loop and returns when it says that it is done.
  void wait(const std::function<void(std::function<void()>)>& work) {
    const auto done = loop::EventNotifier::create();
    main_->loop().post([&] { work([&] { done->notify(); }); });
    pollfd ready{.fd = done->fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  }

  const std::string socket_;
  std::unique_ptr<loop::IoThread> io_ = *loop::IoThread::create({});
  std::unique_ptr<loop::IoThread> main_ = *loop::IoThread::create({.name = "main"});
  block::FakeBackend image_{
      {.sectors = 64, .completion = block::FakeBackend::Completion::kNextTurn}};
  MemoryTable table_;
  std::unique_ptr<VirtioBlk> device_;
  std::unique_ptr<VhostUserBackend> backend_;
};

}  // namespace skiff::devices
