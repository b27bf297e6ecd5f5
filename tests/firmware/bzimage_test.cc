// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "tests/firmware/guest_fixture.h"
#include "tests/firmware/kernel_images.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

// The `+` before a field of boot_params makes a copy: no reference may bind to a packed field.

class BzImageTest : public GuestFixture {
 protected:
  std::string error_with(const std::function<void(setup_header&)>& change) {
    return error_of(make_bzimage(change));
  }
};

TEST_F(BzImageTest, IsEnteredInLongModeBehindItsFirst512Bytes) {
  const auto state = load(make_bzimage());
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->mode, BootState::Mode::kLong64);
  EXPECT_EQ(state->rip, 0x100200u);
  EXPECT_EQ(state->rsi, kZeroPageAddress.value);
  EXPECT_EQ(state->code.selector, 0x10);
  EXPECT_TRUE(state->code.is_long_mode);
  EXPECT_EQ(state->data.selector, 0x18);
  EXPECT_EQ(bytes_at(0x100000, 4096), Bytes(4096, std::byte{0x90}));
}

TEST_F(BzImageTest, GdtHoldsTheSegmentsThatTheStateNames) {
  const auto state = load(make_bzimage());
  ASSERT_TRUE(state);
  EXPECT_EQ(at<uint64_t>(state->gdt.value + 0x10), 0x00af9b000000ffffu);
  EXPECT_EQ(at<uint64_t>(state->gdt.value + 0x18), 0x00cf93000000ffffu);
  EXPECT_EQ(at<uint64_t>(state->gdt.value + 0x20), 0x00008b0000000067u);
  EXPECT_EQ(state->gdt_limit_bytes, 0x2f);
}

TEST_F(BzImageTest, PageTablesMapFourGibOneToOne) {
  const auto state = load(make_bzimage());
  ASSERT_TRUE(state);
  constexpr uint64_t kAddressBits = 0x000ffffffffff000;
  for (const uint64_t address : {uint64_t{0}, uint64_t{0x40201000}, uint64_t{0xffffffff}}) {
    const auto pml4e = at<uint64_t>(state->cr3 + (address >> 39) * 8);
    const auto pdpte = at<uint64_t>((pml4e & kAddressBits) + (address >> 30 & 511) * 8);
    const auto pde = at<uint64_t>((pdpte & kAddressBits) + (address >> 21 & 511) * 8);
    EXPECT_EQ(pml4e & 0x83, 0x3u);
    EXPECT_EQ(pdpte & 0x83, 0x3u);
    EXPECT_EQ(pde, align_down(address, 2 << 20) | 0x83);
  }
}

TEST_F(BzImageTest, ZeroPageCarriesHeaderCommandLineMemoryMapAndRsdp) {
  const Bytes initrd(5000, std::byte{0x11});
  options_.initrd = {initrd};
  ASSERT_TRUE(load(make_bzimage()));
  const auto params = at<boot_params>(kZeroPageAddress.value);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(+params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(+params.sentinel, 0);
  EXPECT_EQ(text_at(params.hdr.cmd_line_ptr), "console=ttyS0");
  EXPECT_EQ(+params.acpi_rsdp_addr, 0xe0000u);
  ASSERT_EQ(+params.e820_entries, 3);
  EXPECT_EQ(+params.e820_table[0].size, 0x9fc00u);
  EXPECT_EQ(+params.e820_table[1].type, 2u);
  EXPECT_EQ(+params.e820_table[2].addr, 0x100000u);
  EXPECT_EQ(+params.hdr.ramdisk_size, 5000u);
  EXPECT_EQ(+params.hdr.ramdisk_image, kMemoryBytes - 2 * kPageBytes);
  EXPECT_EQ(bytes_at(params.hdr.ramdisk_image, 5000), initrd);
}

TEST_F(BzImageTest, HeaderIsCopiedOnlyAsFarAsItReaches) {
  ASSERT_TRUE(load(make_bzimage([](setup_header& header) {
    header.jump = 0x62eb;  // Ends behind init_size.
    header.handover_offset = 0x12345678;
  })));
  EXPECT_EQ(+at<boot_params>(kZeroPageAddress.value).hdr.handover_offset, 0u);
  EXPECT_EQ(+at<boot_params>(kZeroPageAddress.value).hdr.init_size, 0x10000u);
}

TEST_F(BzImageTest, InitrdStaysBelowTheKernelsLimitAndOutsideOfItsMemory) {
  const Bytes initrd(kPageBytes, std::byte{0x11});
  options_.initrd = {initrd};
  ASSERT_TRUE(load(make_bzimage([](setup_header& header) { header.initrd_addr_max = 0x1fffff; })));
  EXPECT_EQ(+at<boot_params>(kZeroPageAddress.value).hdr.ramdisk_image, 0x1ff000u);
  ASSERT_TRUE(load(make_bzimage([](setup_header& header) {
    header.initrd_addr_max = 0x1fffff;
    header.pref_address = 0x1f0000;
  })));
  EXPECT_EQ(+at<boot_params>(kZeroPageAddress.value).hdr.ramdisk_image, 0x1ef000u);
}

TEST_F(BzImageTest, PartsOfTheInitrdAreJoinedWithZeroesBetween) {
  const Bytes first(1021, std::byte{0x11});
  const Bytes second(512, std::byte{0x22});
  options_.initrd = {first, second};
  ASSERT_TRUE(load(make_bzimage()));
  const auto header = at<boot_params>(kZeroPageAddress.value).hdr;
  EXPECT_EQ(+header.ramdisk_size, 1536u + 512);
  EXPECT_EQ(bytes_at(header.ramdisk_image, 1021), first);
  EXPECT_EQ(bytes_at(header.ramdisk_image + 1021, 515), Bytes(515));
  EXPECT_EQ(bytes_at(header.ramdisk_image + 1536, 512), second);
}

TEST_F(BzImageTest, InitrdThatEndsOnABlockStillGetsAGap) {
  const Bytes part(512, std::byte{0x11});
  options_.initrd = {part, part};
  ASSERT_TRUE(load(make_bzimage()));
  EXPECT_EQ(+at<boot_params>(kZeroPageAddress.value).hdr.ramdisk_size, 1536u);
}

TEST_F(BzImageTest, TooBigInitrdIsRefused) {
  const Bytes initrd(kMemoryBytes);
  options_.initrd = {initrd};
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("The initrd (8 MiB) finds no room"));
  const Bytes nothing;
  options_.initrd = {nothing};
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("The initrd is empty"));
}

TEST_F(BzImageTest, TooLongCommandLineNamesTheMaximum) {
  options_.command_line = std::string(2047, 'a');
  EXPECT_EQ(error_of(make_bzimage()), "");
  options_.command_line += 'a';
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("takes at most 2047"));
  options_.command_line = std::string(0x10000, 'a');
  EXPECT_THAT(error_with([](setup_header& header) { header.cmdline_size = UINT32_MAX; }),
              HasSubstr("65535 bytes together, the maximum"));
  options_.command_line = std::string("a\0b", 3);
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("NUL"));
}

TEST_F(BzImageTest, ModulesAreRefused) {
  options_.modules = {{.command_line = "module", .bytes = ram_}};
  EXPECT_THAT(error_of(make_bzimage()), HasSubstr("takes an initrd, no modules"));
}

TEST_F(BzImageTest, EveryTruncationIsRefused) {
  const Bytes whole = make_bzimage();
  for (size_t size = 0; size < whole.size(); size += size < 0x300 ? 1 : 61) {
    const Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    // The last paragraph need not be full.
    if (size + 16 > whole.size()) break;
    EXPECT_NE(error_of(part), "") << size;
  }
}

TEST_F(BzImageTest, DamagedHeaderFieldsAreRefusedByName) {
  EXPECT_THAT(error_with([](setup_header& h) { h.boot_flag = 0; }), HasSubstr("not 0xaa55"));
  EXPECT_THAT(error_with([](setup_header& h) { h.version = 0x20b; }), HasSubstr("Linux 3.8"));
  EXPECT_THAT(error_with([](setup_header& h) { h.jump = 0x6ae9; }), HasSubstr("where it ends"));
  EXPECT_THAT(error_with([](setup_header& h) { h.jump = 0x10eb; }), HasSubstr("where it ends"));
  EXPECT_THAT(error_with([](setup_header& h) { h.xloadflags = 0; }), HasSubstr("32-bit (i386)"));
  EXPECT_THAT(error_with([](setup_header& h) { h.loadflags = 0; }), HasSubstr("zImage"));
  EXPECT_THAT(error_with([](setup_header& h) { h.setup_sects = 255; }), HasSubstr("cut off"));
  EXPECT_THAT(error_with([](setup_header& h) { h.syssize = UINT32_MAX; }), HasSubstr("cut off"));
  EXPECT_THAT(error_with([](setup_header& h) { h.payload_length = UINT32_MAX; }),
              HasSubstr("payload"));
  EXPECT_THAT(error_with([](setup_header& h) { h.payload_length = 0; }), HasSubstr("payload"));
  EXPECT_THAT(error_with([](setup_header& h) { h.payload_offset = UINT32_MAX; }),
              HasSubstr("payload"));
}

TEST_F(BzImageTest, ImpossiblePlacesAreRefused) {
  EXPECT_THAT(error_with([](setup_header& h) { h.kernel_alignment = 0; }), HasSubstr("alignment"));
  EXPECT_THAT(error_with([](setup_header& h) { h.kernel_alignment = 0x3000; }),
              HasSubstr("power of two"));
  EXPECT_THAT(error_with([](setup_header& h) { h.pref_address = 0x100001; }),
              HasSubstr("not aligned"));
  EXPECT_THAT(error_with([](setup_header& h) { h.pref_address = 0x1000; }),
              HasSubstr("below 1 MiB"));
  EXPECT_THAT(error_with([](setup_header& h) { h.pref_address = 0xfffffffffffff000; }),
              HasSubstr("4 GiB"));
  EXPECT_THAT(error_with([](setup_header& h) { h.init_size = 16; }), HasSubstr("less than"));
  EXPECT_THAT(error_with([](setup_header& h) { h.init_size = 16 << 20; }),
              HasSubstr("does not fit in the guest's 8 MiB of memory"));
}

}  // namespace
}  // namespace skiff::firmware
