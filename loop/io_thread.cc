// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/io_thread.h"

#include <memory>
#include <optional>
#include <utility>

#include "loop/event_loop.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/thread_annotations.h"

namespace skiff::loop {

// Where the two threads wait for each other.
struct IoThread::Meeting {
  Mutex mutex;
  ConditionVariable changed;
  std::optional<Result<EventLoop*>> loop SKIFF_GUARDED_BY(mutex);
  bool may_destroy_loop SKIFF_GUARDED_BY(mutex) = false;

  void give_loop(Result<EventLoop*> result) {
    MutexLock lock(mutex);
    loop = std::move(result);
    changed.notify_one();
  }

  Result<EventLoop*> take_loop() {
    MutexLock lock(mutex);
    while (!loop.has_value()) changed.wait(mutex);
    return *loop;
  }

  void allow_destruction() {
    MutexLock lock(mutex);
    may_destroy_loop = true;
    changed.notify_one();
  }

  void await_destruction() {
    MutexLock lock(mutex);
    while (!may_destroy_loop) changed.wait(mutex);
  }
};

IoThread::IoThread() : meeting_(std::make_unique<Meeting>()) {}

void IoThread::serve(const EventLoop::Options& options, Meeting& meeting) {
  Result<std::unique_ptr<EventLoop>> loop = EventLoop::create(options);
  if (!loop) return meeting.give_loop(loop.error());
  // Said from the first turn: by then the loop is bound to this thread.
  (*loop)->post([&meeting, made = loop->get()] { meeting.give_loop(made); });
  (*loop)->run();
  // The destructor may still be inside stop().
  meeting.await_destruction();
}

Result<std::unique_ptr<IoThread>> IoThread::create(Options options) {
  std::unique_ptr<IoThread> io_thread(new IoThread);
  Result<Thread> thread = Thread::create(
      {.name = std::move(options.name), .cpus = std::move(options.cpus), .sched = options.sched},
      [&meeting = *io_thread->meeting_, loop_options = options.loop] {
        serve(loop_options, meeting);
      });
  if (!thread) return thread.error();
  io_thread->thread_ = *std::move(thread);
  Result<EventLoop*> loop = io_thread->meeting_->take_loop();
  if (!loop) return loop.error();
  io_thread->loop_ = *loop;
  return io_thread;
}

IoThread::~IoThread() {
  if (loop_ != nullptr) {
    loop_->stop();
    meeting_->allow_destruction();
  }
  thread_.join();
}

}  // namespace skiff::loop
