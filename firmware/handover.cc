// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/handover.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "firmware/boot.h"
#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// The selectors that the 64-bit boot protocol asks for (__BOOT_CS, __BOOT_DS, __BOOT_TSS).
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kTaskSelector = 0x20;
constexpr size_t kGdtEntries = 6;  // A TSS descriptor takes two in long mode.

constexpr uint8_t kTypeCode = 0xb;  // Execute and read, accessed.
constexpr uint8_t kTypeData = 0x3;  // Read and write, accessed.
constexpr uint8_t kTypeTask = 0xb;  // 32- or 64-bit TSS, busy.

constexpr uint64_t kCr0ProtectedMode = 1U << 0;
constexpr uint64_t kCr0ExtensionType = 1U << 4;
constexpr uint64_t kCr0Paging = 1U << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = 1U << 5;
constexpr uint64_t kEferLongModeEnable = 1U << 8;
constexpr uint64_t kEferLongModeActive = 1U << 10;

constexpr uint64_t kPagePresent = 1U << 0;
constexpr uint64_t kPageWritable = 1U << 1;
constexpr uint64_t kPageLarge = 1U << 7;
constexpr size_t kTableEntries = 512;
constexpr uint64_t kLargePageBytes = uint64_t{2} << 20;
// Not the last page: a module's end must fit in 32 bits.
constexpr uint64_t kModulesEnd = kIdentityMapBytes - kPageBytes;
constexpr size_t kPageDirectories = kIdentityMapBytes / (kTableEntries * kLargePageBytes);

// Intel SDM vol. 3A, 3.4.5 "Segment Descriptors".
uint64_t encode(const BootSegment& segment) {
  const uint64_t limit = segment.is_in_pages ? segment.limit_bytes >> 12 : segment.limit_bytes;
  const uint64_t base = segment.base;
  uint64_t bits = (limit & 0xffff) | (limit >> 16 & 0xf) << 48;
  bits |= (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
  bits |= uint64_t{segment.type} << 40 | uint64_t{segment.is_code_or_data} << 44;
  bits |= uint64_t{1} << 47;  // Present.
  bits |= uint64_t{segment.is_long_mode} << 53 | uint64_t{segment.is_32_bit} << 54;
  bits |= uint64_t{segment.is_in_pages} << 55;
  return bits;
}

Result<void> write_gdt(BootState& state, Placement& placement) {
  const bool is_long = state.mode == BootState::Mode::kLong64;
  const BootSegment flat{.limit_bytes = 0xffffffff, .is_in_pages = true};
  state.code = state.data = flat;
  state.code.selector = kCodeSelector;
  state.code.type = kTypeCode;
  state.code.is_long_mode = is_long;
  state.code.is_32_bit = !is_long;
  state.data.selector = kDataSelector;
  state.data.type = kTypeData;
  state.data.is_32_bit = true;
  state.task = {
      .selector = kTaskSelector, .limit_bytes = 0x67, .type = kTypeTask, .is_code_or_data = false};
  std::array<uint64_t, kGdtEntries> table{};
  for (const BootSegment* segment : {&state.code, &state.data, &state.task})
    table[segment->selector / sizeof(uint64_t)] = encode(*segment);
  state.gdt = kGdtAddress;
  state.gdt_limit_bytes = sizeof(table) - 1;
  return placement.put("the boot GDT", kGdtAddress, std::as_bytes(std::span(table)));
}

// A PML4, one page directory pointer table, and page directories of 2 MiB pages: no CPU feature
// beyond long mode is needed.
Result<void> write_page_tables(Placement& placement) {
  std::array<uint64_t, (2 + kPageDirectories) * kTableEntries> tables{};
  constexpr uint64_t kTableFlags = kPagePresent | kPageWritable;
  const auto table_address = [](size_t index) {
    return kPageTablesAddress.value + index * kPageBytes;
  };
  tables[0] = table_address(1) | kTableFlags;
  for (size_t i = 0; i < kPageDirectories; ++i)
    tables[kTableEntries + i] = table_address(2 + i) | kTableFlags;
  for (size_t i = 0; i < kPageDirectories * kTableEntries; ++i)
    tables[2 * kTableEntries + i] = i * kLargePageBytes | kTableFlags | kPageLarge;
  return placement.put("the boot page tables", kPageTablesAddress,
                       std::as_bytes(std::span(tables)));
}

Result<void> claim_stack(BootState& state, Placement& placement) {
  const auto stack = placement.claim("the boot stack", kBootStackAddress, kBootStackBytes);
  if (!stack) return stack.error();
  state.rsp = kBootStackAddress.value + kBootStackBytes;
  return {};
}

}  // namespace

Result<BootState> enter_long_mode(Placement& placement) {
  BootState state;
  state.mode = BootState::Mode::kLong64;
  state.cr0 = kCr0ProtectedMode | kCr0ExtensionType | kCr0Paging;
  state.cr3 = kPageTablesAddress.value;
  state.cr4 = kCr4PhysicalAddressExtension;
  state.efer = kEferLongModeEnable | kEferLongModeActive;
  SKIFF_RETURN_IF_ERROR(write_gdt(state, placement));
  SKIFF_RETURN_IF_ERROR(write_page_tables(placement));
  SKIFF_RETURN_IF_ERROR(claim_stack(state, placement));
  return state;
}

Result<BootState> enter_protected_mode(Placement& placement) {
  BootState state;
  state.mode = BootState::Mode::kProtected32;
  state.cr0 = kCr0ProtectedMode | kCr0ExtensionType;
  SKIFF_RETURN_IF_ERROR(write_gdt(state, placement));
  SKIFF_RETURN_IF_ERROR(claim_stack(state, placement));
  return state;
}

Result<CommandLines> CommandLines::create(Placement& placement) {
  auto area = placement.claim("the command line", kCommandLineAddress, kCommandLineBytes);
  if (!area) return area.error();
  return CommandLines(*area);
}

Result<uint64_t> CommandLines::add(std::string_view text, uint64_t max_bytes) {
  if (text.find('\0') != std::string_view::npos)
    return Error(ErrorKind::kInvalidArgument, "The command line has a NUL byte in it");
  if (text.size() > max_bytes)
    return Error(ErrorKind::kInvalidArgument,
                 "The command line has " + std::to_string(text.size()) +
                     " bytes: this kernel takes at most " + std::to_string(max_bytes));
  const uint64_t free_bytes = area_.size() - used_bytes_;
  if (text.size() >= free_bytes)
    return Error(ErrorKind::kInvalidArgument,
                 "The command lines of kernel and modules have more "
                 "than " +
                     std::to_string(area_.size() - 1) + " bytes together, the maximum");
  const uint64_t address = kCommandLineAddress.value + used_bytes_;
  const auto into = area_.subspan(used_bytes_, text.size() + 1);
  const auto end = std::ranges::copy(std::as_bytes(std::span(text)), into.begin()).out;
  *end = std::byte{0};
  used_bytes_ += into.size();
  return address;
}

Result<LoadedModule> load_initrd(const BootOptions& options, uint64_t end, Placement& placement) {
  if (options.initrd.empty()) return LoadedModule{};
  // Each further archive must begin at a multiple of four, and Linux's reader of lz4 takes the
  // four bytes after its last block for the size of another unless they are zero.
  constexpr uint64_t kMinGapBytes = 8;
  constexpr uint64_t kPartAlignment = 512;
  std::vector<uint64_t> offsets;
  uint64_t size_bytes = 0;
  for (const auto part : options.initrd) {
    if (part.empty())
      return Error(ErrorKind::kInvalidArgument, "The initrd is empty: is it the right file?");
    const uint64_t begin =
        offsets.empty()
            ? 0
            : align_down(size_bytes + kMinGapBytes + kPartAlignment - 1, kPartAlignment);
    offsets.push_back(begin);
    const auto sum = checked_add(begin, part.size());
    // Linux keeps the size in 32 bits here and there, and below 4 GiB there is no more room.
    if (!sum || *sum >= kIdentityMapBytes)
      return Error(ErrorKind::kInvalidArgument, "The initrd is too big: it must be below 4 GiB");
    size_bytes = *sum;
  }
  auto claim = placement.claim_high("The initrd", size_bytes, end);
  if (!claim) return claim.error();
  uint64_t done = 0;
  for (size_t i = 0; i < offsets.size(); ++i) {
    std::ranges::fill(claim->bytes.subspan(done, offsets[i] - done), std::byte{0});
    std::ranges::copy(options.initrd[i], claim->bytes.subspan(offsets[i]).begin());
    done = offsets[i] + options.initrd[i].size();
  }
  return LoadedModule{.address = claim->base.value, .size_bytes = size_bytes};
}

Result<std::vector<LoadedModule>> load_modules(const BootOptions& options,
                                               CommandLines& command_lines, Placement& placement) {
  std::vector<LoadedModule> modules;
  auto initrd = load_initrd(options, kModulesEnd, placement);
  if (!initrd) return initrd.error();
  if (initrd->size_bytes > 0) modules.push_back(*initrd);
  for (const BootModule& module : options.modules) {
    const std::string name = "The module '" + module.command_line + "'";
    auto claim = placement.claim_high(name, module.bytes.size(), kModulesEnd);
    if (!claim) return claim.error();
    std::ranges::copy(module.bytes, claim->bytes.begin());
    const auto command_line = command_lines.add(module.command_line, kCommandLineBytes - 1);
    if (!command_line) return command_line.error().with_context(name);
    modules.push_back({.address = claim->base.value,
                       .size_bytes = module.bytes.size(),
                       .command_line = *command_line});
  }
  return modules;
}

}  // namespace skiff::firmware
