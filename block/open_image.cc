// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/open_image.h"

#include <spdlog/fmt/fmt.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/filters/fault_plan.h"
#include "block/filters/faulty_image.h"
#include "block/filters/throttled_image.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "block/nbd/nbd_image.h"
#include "block/nbd/nbd_url.h"
#include "block/null_device.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

struct Magic {
  std::string_view bytes;
  std::string_view format;
};
constexpr std::array kMagics = {Magic{"QFI\xfb", "qcow2"}, Magic{"KDMV", "VMDK"},
                                Magic{"vhdxfile", "VHDX"}, Magic{"conectix", "VHD"},
                                Magic{std::string_view("QED\0", 4), "QED"}};

// `begin`: the first bytes of the disk, as many as there are.
Result<void> refuse_magic(std::string_view begin, const std::string& name) {
  for (const Magic& magic : kMagics) {
    if (!begin.starts_with(magic.bytes)) continue;
    return Error(ErrorKind::kUnsupported,
                 fmt::format("Disk {} looks like a {} image, which this version cannot read; "
                             "convert it with qemu-img convert -O raw, or say format=raw if "
                             "these bytes are the disk itself",
                             name, magic.format));
  }
  return {};
}

Result<void> refuse_other_formats(const FileDevice& file) {
  // Large and aligned enough for O_DIRECT.
  const AlignedBuffer start(4096, 4096);
  ssize_t got;
  do {
    got = pread(file.fd(), start.data(), start.size_bytes(), 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return Error::from_errno(errno, fmt::format("Reading disk {}", file.name()));
  return refuse_magic({reinterpret_cast<const char*>(start.data()), static_cast<size_t>(got)},
                      file.name());
}

Result<std::unique_ptr<BlockBackend>> open_nbd(const ImageOptions& options,
                                               loop::WorkerPool& pool) {
  if (options.direct == DirectIo::kOn || options.engine != IoEngineKind::kAuto) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("Disk {}: direct= and engine= are for files; an NBD server does its "
                             "own I/O (see its options, such as qemu-nbd --cache=none)",
                             options.path));
  }
  auto image = NbdImage::open(
      {.url = options.path, .access = options.access, .patience = options.nbd}, pool);
  if (!image) return image.error();
  const std::vector<std::byte>& begin = (*image)->first_bytes();
  if (!options.format) {
    SKIFF_RETURN_IF_ERROR(
        refuse_magic({reinterpret_cast<const char*>(begin.data()), begin.size()}, options.path));
  }
  return std::unique_ptr<BlockBackend>(*std::move(image));
}

// The image without filters.
Result<std::unique_ptr<BlockBackend>> open_node(const ImageOptions& options, loop::WorkerPool& pool,
                                                FaultPlan* faults) {
  if (NullDevice::is_null_path(options.path)) {
    auto null = NullDevice::parse(options.path);
    if (!null) return null.error();
    null->read_only = options.access == WriteAccess::kReadOnly;
    return std::unique_ptr<BlockBackend>(std::make_unique<RawImage>(
        std::make_unique<NullDevice>(*null, options.path), options.engine, pool, faults));
  }
  if (is_nbd_url(options.path)) return open_nbd(options, pool);
  auto file =
      FileDevice::open({.path = options.path, .access = options.access, .direct = options.direct});
  if (!file) return file.error();
  if (!options.format) SKIFF_RETURN_IF_ERROR(refuse_other_formats(**file));
  return std::unique_ptr<BlockBackend>(
      std::make_unique<RawImage>(*std::move(file), options.engine, pool, faults));
}

}  // namespace

Result<std::unique_ptr<BlockBackend>> open_image(const ImageOptions& options,
                                                 loop::WorkerPool& pool) {
  std::unique_ptr<FaultPlan> faults;
  if (options.faults) faults = std::make_unique<FaultPlan>(*options.faults);
  auto node = open_node(options, pool, faults.get());
  if (!node) return node.error();
  std::unique_ptr<BlockBackend> image = *std::move(node);
  if (faults) image = std::make_unique<FaultyImage>(std::move(faults), std::move(image));
  if (options.throttle.any())
    image = std::make_unique<ThrottledImage>(options.throttle, std::move(image));
  return image;
}

}  // namespace skiff::block
