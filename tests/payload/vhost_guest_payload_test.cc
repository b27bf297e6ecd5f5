// SPDX-License-Identifier: GPL-2.0-or-later
// Guests with a disk that another process serves: Skiff's guest on Skiff's back end and on QEMU's,
// QEMU's guest on Skiff's, and Skiff's back end killed and restarted under both.
//
// The guest is the one of `skiff bench guest`: it checks what it reads, and what it has written is
// compared afterwards.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loop/result.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"
#include "tests/block/nbd/server_process.h"
#include "tests/temp_dir.h"
#include "vmm/bench/driver/disk_pattern.h"
#include "vmm/bench/guest/bench_payload.h"
#include "vmm/bench/guest/guest_command.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_process.h"
#include "vmm/bench/tsc_rate.h"

namespace skiff::payload {
namespace {

using vmm::fill_pattern;
using vmm::is_pattern;
using Command = std::vector<std::string>;

constexpr uint64_t kBlockBytes = 4096;
constexpr int64_t kPatienceNs = 120'000'000'000;

enum class BackEnd : uint8_t { kSkiff, kQemu };
struct Pair {
  const char* name;
  const char* guest;  // Whose: "skiff" or "qemu".
  BackEnd back_end;
  const char* completion;
};

std::string skiff_program() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "skiff";
}

bool is_installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null").c_str()) == 0;
}

// The word behind `option` that begins with `prefix`.
std::string& word_of(Command& command, const std::string& option, const std::string& prefix) {
  static std::string none;
  for (size_t i = 0; i + 1 < command.size(); ++i)
    if (command[i] == option && command[i + 1].starts_with(prefix)) return command[i + 1];
  ADD_FAILURE() << "no " << option << " " << prefix;
  return none;
}

class VhostGuest : public ::testing::TestWithParam<Pair> {
 protected:
  void SetUp() override {
    if (std::getenv("SKIFF_LAB") == nullptr) return;  // scripts/setup installs it.
    const char* program = GetParam().guest == std::string("qemu") ? "qemu-system-x86_64"
                          : GetParam().back_end == BackEnd::kQemu ? "qemu-storage-daemon"
                                                                  : "true";
    if (!is_installed(program)) GTEST_SKIP() << program << " is not in the lab";
  }

  Command back_end_command(const std::string& disk) const {
    if (GetParam().back_end == BackEnd::kSkiff)
      return {skiff_program(), "storage", "--socket", socket_, "--disk", "path=" + disk};
    return {"qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=" + disk,
            "--export",
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,"
            "addr.type=unix,addr.path=" +
                socket_};
  }
  // Runs a guest with two queues over the socket; its document.
  nlohmann::json run(vmm::GuestBenchWords words) {
    words.path = "null:size=1G";  // QEMU's other disk, which has no device.
    words.vmm = GetParam().guest;
    words.completion = GetParam().completion;
    words.cpus = "2";
    words.depth = "8";
    words.verify = true;
    const auto options = vmm::parse_guest_bench(words);
    if (!options) return failed(options.error());
    const auto payload = vmm::PayloadFile::create();
    if (!payload) return failed(payload.error());
    auto command = vmm::guest_command(*options, options->contestants.front(),
                                      {.payload = payload->path(),
                                       .skiff = skiff_program(),
                                       .tsc_khz = vmm::tsc_khz(),
                                       .duration_ns = options->duration_ns,
                                       .seed = 1});
    if (!command) return failed(command.error());
    use_socket(*command, *options);
    const auto outcome = vmm::run_guest_process(*command, kPatienceNs, {});
    if (!outcome) return failed(outcome.error());
    auto document = nlohmann::json::parse(outcome->document, nullptr, false);
    EXPECT_TRUE(document.is_object() && !document.contains("error")) << outcome->document;
    return document.contains("queues") ? document : nlohmann::json::parse(kNothing);
  }
  // Of each queue, when the guest had worked for `seconds`; until then `meanwhile` runs again and
  // again, on the thread that has started the back end.
  std::vector<uint64_t> write_blocks(const char* seconds, const std::function<void()>& meanwhile) {
    vmm::GuestBenchWords words;
    words.rw = "write";
    words.overwrite = true;
    words.duration = seconds;
    words.rate = "2000";  // So that no block is written twice.
    nlohmann::json document;
    std::atomic<bool> has_ended{false};
    {
      const auto guest = loop::Thread::create({.name = "guest"}, [&] {
        document = run(words);
        has_ended = true;
      });
      EXPECT_TRUE(guest);
      while (!has_ended) {
        meanwhile();
        ::poll(nullptr, 0, 1);
      }
    }
    return {document["queues"][0]["requests"].get<uint64_t>(),
            document["queues"][1]["requests"].get<uint64_t>()};
  }
  // Each queue has written so many blocks, the second from the middle of the disk on.
  void expect_written(const std::vector<uint64_t>& blocks) const {
    for (size_t queue = 0; queue < blocks.size(); ++queue) {
      EXPECT_GT(blocks[queue], 0u);
      const uint64_t from = kDiskBytes / 2 * queue;
      const auto bytes = read(from, blocks[queue] * kBlockBytes);
      for (uint64_t at = 0; at < bytes.size(); at += kBlockBytes)
        ASSERT_TRUE(is_pattern(&bytes[at], kBlockBytes, from + at))
            << "queue " << queue << ": block " << at / kBlockBytes << " of " << blocks[queue];
    }
  }
  uint64_t allocated_bytes() const {
    struct stat facts = {};
    EXPECT_EQ(::stat(disk_.c_str(), &facts), 0);
    return static_cast<uint64_t>(facts.st_blocks) * 512;
  }

  static constexpr uint64_t kDiskBytes = uint64_t{1} << 30;
  TempDir dir_;
  const std::string disk_ = dir_.make_sparse("disk.img", kDiskBytes);
  const std::string socket_ = dir_.path("socket");

 private:
  static constexpr const char* kNothing = R"({"queues": [{"requests": 0}, {"requests": 0}]})";

  static nlohmann::json failed(const loop::Error& error) {
    ADD_FAILURE() << error.message();
    return nlohmann::json::parse(kNothing);
  }
  void use_socket(Command& command, const vmm::GuestBenchOptions& options) const {
    const std::string queues = std::to_string(options.queues);
    if (GetParam().guest == std::string("skiff")) {
      word_of(command, "--disk", "path=") = "vhost-user=" + socket_ + ",queues=" + queues;
      return;
    }
    word_of(command, "-device", "virtio-blk-pci") =
        "vhost-user-blk-pci,disable-legacy=on,chardev=disk,queue-size=256,num-queues=" + queues;
    const auto device = std::ranges::find(command, "-blockdev");
    command.insert(
        device, {"-object", "memory-backend-memfd,id=ram,share=on,size=64M", "-machine",
                 "memory-backend=ram", "-chardev", "socket,id=disk,reconnect=1,path=" + socket_});
  }
  std::vector<std::byte> read(uint64_t from, uint64_t size_bytes) const {
    const loop::UniqueFd fd(::open(disk_.c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<std::byte> bytes(size_bytes);
    EXPECT_EQ(::pread(fd.get(), bytes.data(), size_bytes, static_cast<off_t>(from)),
              static_cast<ssize_t>(size_bytes));
    return bytes;
  }
};

TEST_P(VhostGuest, ReadsWhatIsOnTheDisk) {
  std::vector<std::byte> bytes(size_t{4} << 20);
  fill_pattern(bytes.data(), bytes.size(), 0);
  const block::ServerProcess server(back_end_command(dir_.make_file("pattern.img", bytes)),
                                    socket_);
  ASSERT_FALSE(HasFailure());
  vmm::GuestBenchWords words;
  words.duration = "0.3";
  const auto document = run(words);
  EXPECT_GT(document["queues"][0]["requests"].get<uint64_t>(), 0u);
  EXPECT_GT(document["queues"][1]["requests"].get<uint64_t>(), 0u);
}

TEST_P(VhostGuest, WritesReachTheDisk) {
  const block::ServerProcess server(back_end_command(disk_), socket_);
  ASSERT_FALSE(HasFailure());
  expect_written(write_blocks("0.3", [] {}));
}

std::string name_of(const ::testing::TestParamInfo<Pair>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Pairs, VhostGuest,
    ::testing::Values(Pair{"SkiffOnSkiffPolling", "skiff", BackEnd::kSkiff, "poll"},
                      Pair{"SkiffOnSkiffInterrupts", "skiff", BackEnd::kSkiff, "irq"},
                      Pair{"SkiffOnQemu", "skiff", BackEnd::kQemu, "irq"},
                      Pair{"QemuOnSkiff", "qemu", BackEnd::kSkiff, "irq"}),
    name_of);

class VhostGuestOverDeath : public VhostGuest {};

TEST_P(VhostGuestOverDeath, NothingIsLostWhenTheBackEndIsKilledUnderLoad) {
  constexpr int kKills = 3;
  constexpr uint64_t kBytesBetween = uint64_t{4} << 20;
  block::ServerProcess server(back_end_command(disk_), socket_);
  ASSERT_FALSE(HasFailure());
  int kills = 0;
  uint64_t next_kill = kBytesBetween;
  const auto written = write_blocks("6", [&] {
    if (kills == kKills || allocated_bytes() < next_kill) return;
    server.restart();
    ++kills;
    next_kill = allocated_bytes() + kBytesBetween;
  });
  EXPECT_GT(kills, 0);
  expect_written(written);
}

INSTANTIATE_TEST_SUITE_P(Pairs, VhostGuestOverDeath,
                         ::testing::Values(Pair{"Skiff", "skiff", BackEnd::kSkiff, "irq"},
                                           Pair{"Qemu", "qemu", BackEnd::kSkiff, "irq"}),
                         name_of);

}  // namespace
}  // namespace skiff::payload
