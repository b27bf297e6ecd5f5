// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/doctor_disk.h"

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "block/file_device.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "block/probe.h"
#include "loop/result.h"

namespace skiff::vmm {
namespace {

using block::Answer;

const char* word(Answer answer) {
  if (answer == Answer::kUnknown) return "not tried";
  return answer == Answer::kYes ? "yes" : "no";
}

double us(int64_t time_ns) { return static_cast<double>(time_ns) / 1e3; }

std::string alignment_text(const block::DiskFinding& finding) {
  if (finding.offset_alignment == 0) return "not told by the file system (STATX_DIOALIGN)";
  return fmt::format("{} bytes of offsets, {} of memory (STATX_DIOALIGN)", finding.offset_alignment,
                     finding.memory_alignment);
}

loop::Result<std::unique_ptr<block::IoDevice>> open_device(const std::string& path,
                                                           block::DirectIo direct) {
  if (block::NullDevice::is_null_path(path)) {
    auto options = block::NullDevice::parse(path);
    if (!options) return options.error();
    return std::unique_ptr<block::IoDevice>(std::make_unique<block::NullDevice>(*options, path));
  }
  auto file = block::FileDevice::open(
      {.path = path, .access = block::WriteAccess::kReadOnly, .direct = direct});
  if (!file) return file.error();
  return std::unique_ptr<block::IoDevice>(*std::move(file));
}

}  // namespace

std::string disk_finding_text(const block::DiskFinding& finding) {
  const char* how = "through the page cache";
  if (finding.direct_io) how = "opened with direct=on";
  if (finding.nowait == Answer::kUnknown) how = "no file";
  std::string text = fmt::format("Disk {}: {} bytes, {}\n", finding.name, finding.size_bytes, how);
  const auto fact = [&text](const char* name, const std::string& value) {
    text += fmt::format("  {:<34} {}\n", name, value);
  };
  fact("O_DIRECT alignment", alignment_text(finding));
  fact("non-blocking reads (RWF_NOWAIT)", word(finding.nowait));
  fact("io_uring needs kernel threads", word(finding.punts));
  fact("discard", word(finding.discard));
  fact("write zeroes", word(finding.write_zeroes));
  fact("waking a sleeping loop", fmt::format("{:.1f} us", us(finding.wake_ns)));
  std::string ring = finding.io_uring.usable ? "yes" : "no: " + finding.io_uring.why_not;
  for (const std::string& op : finding.io_uring.missing_ops) ring += ", without " + op;
  fact("io_uring", ring);
  text += fmt::format("\n{:<11} {:<7} {:>9} {:>9}\n", "engine", "usable", "p50", "worst");
  for (const block::EngineFinding& engine : finding.engines) {
    const std::string_view name = block::engine_name(engine.kind);
    if (engine.usable)
      text += fmt::format("{:<11} {:<7} {:>6.1f} us {:>6.1f} us\n", name, "yes", us(engine.p50_ns),
                          us(engine.worst_ns));
    else
      text += fmt::format("{:<11} {:<7} {}\n", name, "no", engine.why_not);
  }
  return text +
         fmt::format("(32 reads of 4 KiB each, one at a time)\n\nauto: {}\n", finding.choice);
}

loop::Result<block::DiskFinding> examine_disk(const std::string& path, block::DirectIo direct) {
  auto device = open_device(path, direct);
  if (!device) return device.error();
  return block::probe_engines(**device);
}

}  // namespace skiff::vmm
