// SPDX-License-Identifier: GPL-2.0-or-later
// A stock Debian kernel boots, in every form and on every bus, on the processors asked for.
#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "loop/file.h"
#include "tests/firmware/kernel_images.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Arguments root_disk_guest(const std::string& kernel, const std::string& cpus,
                          const std::string& bus) {
  return {"run",
          "--kernel",
          kernel,
          "--initrd",
          image("modules.cpio"),
          "--memory",
          "512M",
          "--cpus",
          cpus,
          "--timeout",
          "300",
          "--disk",
          "path=" + image("rootfs.img") + ",format=raw,bus=" + bus};
}

struct Boot {
  std::string kernel;
  std::string cpus;
  std::string bus;
};

class StockKernel : public ::testing::TestWithParam<Boot> {};

TEST_P(StockKernel, RunsACommandOnItsRootDiskAndEndsWithItsStatus) {
  const Boot& boot = GetParam();
  const Outcome outcome =
      run_skiff(root_disk_guest(image(boot.kernel), boot.cpus, boot.bus) +
                Arguments{"--exec", "echo CPUs $(nproc); cat /etc/os-release; exit 42"});
  EXPECT_EQ(outcome.status, 42) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("CPUs " + boot.cpus + "\n"));
  EXPECT_THAT(outcome.out, HasSubstr("VERSION_CODENAME=bookworm"));
}

INSTANTIATE_TEST_SUITE_P(
    Boots, StockKernel,
    ::testing::Values(Boot{"vmlinuz", "1", "pci"}, Boot{"vmlinuz", "4", "mmio"},
                      Boot{"vmlinux", "1", "mmio"}, Boot{"vmlinux", "16", "pci"}),
    [](const auto& param) {
      return param.param.kernel + "_" + param.param.cpus + "_" + param.param.bus;
    });

// Debian's vmlinux has a PVH entry, which is taken for kernels that do not say that they are Linux.
TEST(StockKernelPvh, BootsThroughItsPvhEntry) {
  const auto kernel = loop::MappedFile::open(image("vmlinux"));
  ASSERT_TRUE(kernel);
  std::string bytes(reinterpret_cast<const char*>(kernel->bytes().data()), kernel->bytes().size());
  // The header of an ELF note by "Linux": six bytes of name, and whatever the note holds.
  const std::string name("Linux\0\0\0", 8);
  size_t renamed = 0;
  for (size_t at = bytes.find(name); at != std::string::npos; at = bytes.find(name, at + 1)) {
    const bool is_note = at >= 12 && bytes.compare(at - 12, 4, std::string("\x06\0\0\0", 4)) == 0;
    if (!is_note) continue;
    bytes[at] = 'l';
    ++renamed;
  }
  ASSERT_GT(renamed, 0U);
  const ScratchFile pvh("vmlinux-pvh", std::as_bytes(std::span(bytes)));
  const Outcome outcome =
      run_skiff(with(exec_guest("hexdump -C /sys/kernel/boot_params/data | head -n 40; exit 8"),
                     "--kernel", pvh.path()) +
                Arguments{"--cpus", "2"});
  EXPECT_EQ(outcome.status, 8) << outcome.err;
  // 0x210: type of loader 0xb0, which only the kernel's own PVH code fills in.
  EXPECT_THAT(outcome.out, HasSubstr("00000210  b0")) << outcome.out;
}

TEST(Processors, HaveTheTopologyThatWasAskedFor) {
  const Outcome outcome =
      run_skiff(root_disk_guest(image("vmlinuz"), "8,sockets=2,cores=2,threads=2", "pci") +
                Arguments{"--exec", "lscpu -J; lscpu -p=CPU,CORE,SOCKET"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const auto says = [](const std::string& field, const std::string& value) {
    return ::testing::ContainsRegex("\"field\": \"" + field + ":\",\n *\"data\": \"" + value +
                                    "\"");
  };
  EXPECT_THAT(outcome.out, says("CPU.s.", "8"));
  EXPECT_THAT(outcome.out, says("Thread.s. per core", "2"));
  EXPECT_THAT(outcome.out, says("Core.s. per socket", "2"));
  EXPECT_THAT(outcome.out, says("Socket.s.", "2"));
  EXPECT_THAT(outcome.out, HasSubstr("0,0,0\n1,0,0\n2,1,0\n3,1,0\n4,2,1\n5,2,1\n6,3,1\n7,3,1\n"));
}

TEST(Processors, LackTheFeaturesThatAreMaskedAndOnlyThose) {
  const std::string flags = "grep -m 1 ^flags /proc/cpuinfo";
  const Outcome all = run_skiff(exec_guest(flags));
  const Outcome masked = run_skiff(exec_guest(flags) + Arguments{"--cpus", "2,mask=aes:rdrand"});
  ASSERT_EQ(all.status, 0) << all.err;
  ASSERT_EQ(masked.status, 0) << masked.err;
  ASSERT_THAT(all.out, HasSubstr(" aes ")) << "choose a feature that this host has";
  ASSERT_THAT(all.out, HasSubstr(" rdrand "));
  EXPECT_THAT(masked.out, Not(HasSubstr(" aes ")));
  EXPECT_THAT(masked.out, Not(HasSubstr(" rdrand ")));
  EXPECT_THAT(masked.out, HasSubstr(" sse4_2 "));
}

TEST(EntropyDevice, FeedsTheGuest) {
  const Outcome outcome =
      run_skiff(exec_guest("cat /sys/class/misc/hw_random/rng_current; "
                           "head -c 65536 /dev/hwrng > /a; head -c 65536 /dev/hwrng > /b; "
                           "wc -c < /a; cmp /a /b") +
                Arguments{"--rng"});
  EXPECT_EQ(outcome.status, 1) << "two draws are equal: " << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("virtio_rng.0\n65536\n"));
}

// The kernels of the unit tests, with code that a processor runs: how each is entered, in
// milliseconds.
struct Payload {
  std::string name;
  bool is_64_bit;
  bool has_pvh_entry;
  bool has_multiboot_header;
};

class PayloadKernel : public ::testing::TestWithParam<Payload> {
 protected:
  // `code` must mean the same in 32 and 64 bits.
  static Outcome run(const std::string& code) {
    firmware::ElfSpec spec;
    firmware::Bytes content;
    if (GetParam().has_multiboot_header) content = firmware::make_multiboot_header(0);
    spec.is_64_bit = GetParam().is_64_bit;
    spec.machine = spec.is_64_bit ? EM_X86_64 : EM_386;
    spec.entry = spec.segments[0].address + content.size();
    if (GetParam().has_pvh_entry) spec.pvh_entry = spec.entry;
    const firmware::Bytes text = firmware::to_bytes(code);
    content.insert(content.end(), text.begin(), text.end());
    content.resize(256);
    spec.segments[0].content = content;
    const firmware::Bytes kernel = firmware::make_elf(spec);
    const ScratchFile file("payload", kernel);
    return run_skiff({"run", "--kernel", file.path(), "--memory", "64M", "--timeout", "60"});
  }
};

TEST_P(PayloadKernel, IsEnteredAndEndsTheMachineWithItsOwnStatus) {
  // mov al, 21; out 0xf4, al; hlt; jmp $
  const Outcome outcome = run(std::string("\xb0\x15\xe6\xf4\xf4\xeb\xfe", 7));
  EXPECT_EQ(outcome.status, 21 << 1 | 1) << outcome.err;
}

TEST_P(PayloadKernel, ThatFaultsWithoutHandlersIsACrashWithTheRegistersShown) {
  // lidt [0] is not needed: the table that it starts with is empty. ud2
  const Outcome outcome = run(std::string("\x0f\x0b", 2));
  EXPECT_EQ(outcome.status, 121);
  EXPECT_THAT(outcome.err, HasSubstr("triple fault"));
}

TEST_P(PayloadKernel, ThatLeavesItsMemoryIsAKvmErrorWithRegistersAndInstruction) {
  // mov eax, 0xc8000000; jmp (r)ax: no RAM and no device there.
  const Outcome outcome = run(std::string("\xb8\0\0\0\xc8\xff\xe0", 7));
  EXPECT_EQ(outcome.status, 122);
  EXPECT_THAT(outcome.err, HasSubstr("c8000000")) << "no registers";
}

INSTANTIATE_TEST_SUITE_P(Entries, PayloadKernel,
                         ::testing::Values(Payload{"Linux64", true, false, false},
                                           Payload{"Pvh32", true, true, false},
                                           Payload{"Multiboot32", false, false, true}),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace skiff::guest
