// SPDX-License-Identifier: GPL-2.0-or-later
// NbdImage: a disk that an NBD server has.
//
// Thread: as BlockBackend; open() and the destructor block for as long as connecting may take.
// Ownership: owns the thread of its home loop, borrows the pool; outlives its channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/block_limits.h"
#include "block/file_device.h"
#include "block/nbd/nbd_home.h"
#include "block/nbd/nbd_patience.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class NbdImage final : public BlockBackend {
 public:
  struct Options {
    std::string url;
    WriteAccess access = WriteAccess::kReadWrite;
    NbdPatience patience = {};
  };

  // Errors of the URL, of connecting, and of what the server says; see NbdExport::learn().
  // kPermission when it is to be written and the server offers it for reading only.
  static loop::Result<std::unique_ptr<NbdImage>> open(const Options& options,
                                                      loop::WorkerPool& pool);
  ~NbdImage() override;
  NbdImage(const NbdImage&) = delete;
  NbdImage& operator=(const NbdImage&) = delete;

  uint64_t size_bytes() const override { return facts_.size_bytes; }
  bool is_read_only() const override { return facts_.read_only; }
  const BlockLimits& limits() const override { return limits_; }
  const std::string& name() const override { return options_.url; }
  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;

  // The beginning of the disk, for telling formats apart: at most 4096 bytes.
  const std::vector<std::byte>& first_bytes() const { return first_bytes_; }

 private:
  explicit NbdImage(const Options& options) : options_(options) {}
  loop::Result<void> start(loop::WorkerPool& pool);
  void say_how() const;

  const Options options_;
  std::unique_ptr<loop::IoThread> thread_;
  std::unique_ptr<NbdHome> home_;  // Lives on the thread.
  NbdExport facts_;
  BlockLimits limits_;
  std::vector<std::byte> first_bytes_;
};

}  // namespace skiff::block
