// SPDX-License-Identifier: GPL-2.0-or-later

#include <elf.h>
#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "firmware/boot.h"
#include "firmware/layout.h"
#include "tests/firmware/guest_fixture.h"
#include "tests/firmware/kernel_images.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

// The `+` before a field of boot_params makes a copy: no reference may bind to a packed field.

class ElfTest : public GuestFixture {
 protected:
  template <typename T>
  std::string error_with(size_t offset, T value, const ElfSpec& spec = {}) {
    Bytes file = make_elf(spec);
    std::memcpy(file.data() + offset, &value, sizeof(value));
    return error_of(file);
  }
  // Into the first program header.
  template <typename T>
  std::string error_with_segment(size_t offset, T value, const ElfSpec& spec = {}) {
    return error_with(sizeof(Elf64_Ehdr) + offset, value, spec);
  }
};

TEST_F(ElfTest, VmlinuxIsEnteredInLongModeWithAZeroPage) {
  const auto state = load(make_elf({.entry = 0x100010}));
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->mode, BootState::Mode::kLong64);
  EXPECT_EQ(state->rip, 0x100010u);
  EXPECT_EQ(state->rsi, kZeroPageAddress.value);
  const auto params = at<boot_params>(kZeroPageAddress.value);
  EXPECT_EQ(+params.hdr.boot_flag, 0xaa55);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(text_at(params.hdr.cmd_line_ptr), "console=ttyS0");
}

TEST_F(ElfTest, BytesBeyondTheFileAreZeroed) {
  ASSERT_TRUE(load(make_elf({})));
  EXPECT_EQ(bytes_at(0x100000, 256), Bytes(256, std::byte{0x90}));
  EXPECT_EQ(bytes_at(0x100100, 256), Bytes(256));
  EXPECT_EQ(at<uint8_t>(0x100200), 0xa5);
}

TEST_F(ElfTest, LinuxWithAPvhNoteGoesByThe64BitProtocolUnlessForced) {
  const Bytes file = make_elf({.has_linux_note = true, .pvh_entry = 0x100020});
  EXPECT_EQ(load(file)->mode, BootState::Mode::kLong64);
  options_.protocol = Protocol::kPvh;
  EXPECT_EQ(load(file)->mode, BootState::Mode::kProtected32);
}

TEST_F(ElfTest, AnyOtherFileWithAPvhNoteGoesByItUnlessForced) {
  const Bytes file = make_elf({.pvh_entry = 0x100020});
  EXPECT_EQ(load(file)->mode, BootState::Mode::kProtected32);
  options_.protocol = Protocol::kLinux64;
  EXPECT_EQ(load(file)->mode, BootState::Mode::kLong64);
}

TEST_F(ElfTest, EveryTruncationIsRefused) {
  const Bytes whole = make_elf({.has_linux_note = true, .pvh_entry = 0x100020});
  for (size_t size = 0; size < whole.size(); ++size) {
    const Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_NE(error_of(part), "") << size;
  }
}

TEST_F(ElfTest, ForeignFilesAreNamed) {
  EXPECT_THAT(error_of(make_elf({.machine = EM_AARCH64})), HasSubstr("arm64"));
  EXPECT_THAT(error_of(make_elf({.machine = EM_RISCV})), HasSubstr("not for x86"));
  EXPECT_THAT(error_of(make_elf({.type = ET_DYN})), HasSubstr("position-independent"));
  EXPECT_THAT(error_of(make_elf({.type = ET_REL})), HasSubstr("kernel module"));
  EXPECT_THAT(error_with(EI_DATA, uint8_t{ELFDATA2MSB}), HasSubstr("big-endian"));
  EXPECT_THAT(error_with(EI_CLASS, uint8_t{3}), HasSubstr("class is 3"));
}

TEST_F(ElfTest, ThirtyTwoBitFileThatSaysNothingIsRefused) {
  const Bytes file = make_elf({.is_64_bit = false, .machine = EM_386});
  EXPECT_THAT(error_of(file), HasSubstr("neither a multiboot header"));
  options_.protocol = Protocol::kLinux64;
  EXPECT_THAT(error_of(file), HasSubstr("needs ELF64"));
}

TEST_F(ElfTest, AbsurdHeadersAreRefused) {
  EXPECT_THAT(error_with(offsetof(Elf64_Ehdr, e_phnum), uint16_t{0}), HasSubstr("0 program"));
  EXPECT_THAT(error_with(offsetof(Elf64_Ehdr, e_phnum), uint16_t{0xffff}),
              HasSubstr("65535 program"));
  EXPECT_THAT(error_with(offsetof(Elf64_Ehdr, e_phentsize), uint16_t{8}), HasSubstr("8 bytes"));
  EXPECT_THAT(error_with(offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX), HasSubstr("past the end"));
  EXPECT_THAT(error_with_segment(offsetof(Elf64_Phdr, p_offset), UINT64_MAX),
              HasSubstr("past the end"));
  EXPECT_THAT(error_with_segment(offsetof(Elf64_Phdr, p_filesz), UINT64_MAX),
              HasSubstr("past the end"));
  EXPECT_THAT(error_with_segment(offsetof(Elf64_Phdr, p_memsz), uint64_t{1}),
              HasSubstr("more bytes in the file"));
  EXPECT_THAT(error_with_segment(offsetof(Elf64_Phdr, p_type), uint32_t{PT_NULL}),
              HasSubstr("nothing to load"));
}

TEST_F(ElfTest, DamagedNotesAreRefused) {
  const ElfSpec spec{.pvh_entry = 0x100020};
  const size_t notes_at = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + 256;
  EXPECT_THAT(error_with(notes_at, UINT32_MAX, spec), HasSubstr("a note goes past"));
  EXPECT_THAT(error_with(notes_at + 4, UINT32_MAX, spec), HasSubstr("a note goes past"));
  EXPECT_THAT(error_with(notes_at + 4, uint32_t{2}, spec), HasSubstr("holds no address"));
}

TEST_F(ElfTest, SegmentsOutsideOfMemoryAreRefused) {
  constexpr size_t kAddress = offsetof(Elf64_Phdr, p_paddr);
  EXPECT_THAT(error_with_segment(kAddress, uint64_t{16} << 20),
              HasSubstr("does not fit in the guest's 8 MiB"));
  EXPECT_THAT(error_with_segment(kAddress, UINT64_MAX), HasSubstr("past 4 GiB"));
  EXPECT_THAT(error_with_segment(kAddress, uint64_t{4} << 30), HasSubstr("past 4 GiB"));
  EXPECT_THAT(error_with_segment(offsetof(Elf64_Phdr, p_memsz), UINT64_MAX - 0x1000),
              HasSubstr("past 4 GiB"));
}

TEST_F(ElfTest, SegmentsOverEachOtherOrOverOurTablesAreRefused) {
  EXPECT_THAT(error_of(make_elf({.segments = {{}, {.address = 0x1001ff}}})),
              HasSubstr("overlaps The kernel's segment 0"));
  EXPECT_THAT(error_of(make_elf({.segments = {{}, {.address = 0x9fb00}}})),
              HasSubstr("overlaps the BIOS area"));
  EXPECT_THAT(error_of(make_elf({.segments = {{}, {.address = 0x9000}}})),
              HasSubstr("the boot page tables"));
  EXPECT_THAT(error_of(make_elf({.segments = {{}, {.address = 0x7f00}}})),
              HasSubstr("the zero page"));
  EXPECT_THAT(error_of(make_elf({.segments = {{}, {.address = 0}}})),
              HasSubstr("the BIOS data area"));
}

TEST_F(ElfTest, EntryPointMustBeLoaded) {
  EXPECT_THAT(error_of(make_elf({.entry = 0x100200})), HasSubstr("in none of its segments"));
  EXPECT_THAT(error_of(make_elf({.entry = 0xffffffff81000000})), HasSubstr("physical address"));
}

}  // namespace
}  // namespace skiff::firmware
