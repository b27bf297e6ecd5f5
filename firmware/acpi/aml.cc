// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/aml.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/check.h"

namespace skiff::firmware {
namespace {

// ACPI 6.5, 20.3 "AML Byte Stream Byte Values".
constexpr uint8_t kZero = 0x00;
constexpr uint8_t kOne = 0x01;
constexpr uint8_t kNameOp = 0x08;
constexpr uint8_t kBytePrefix = 0x0a;
constexpr uint8_t kWordPrefix = 0x0b;
constexpr uint8_t kDWordPrefix = 0x0c;
constexpr uint8_t kStringPrefix = 0x0d;
constexpr uint8_t kQWordPrefix = 0x0e;
constexpr uint8_t kScopeOp = 0x10;
constexpr uint8_t kBufferOp = 0x11;
constexpr uint8_t kPackageOp = 0x12;
constexpr uint8_t kMethodOp = 0x14;
constexpr uint8_t kDualNamePrefix = 0x2e;
constexpr uint8_t kMultiNamePrefix = 0x2f;
constexpr uint8_t kExtendedPrefix = 0x5b;
constexpr uint8_t kLocal0 = 0x60;
constexpr uint8_t kArg0 = 0x68;
constexpr uint8_t kStoreOp = 0x70;
constexpr uint8_t kAndOp = 0x7b;
constexpr uint8_t kOrOp = 0x7d;
constexpr uint8_t kNotifyOp = 0x86;
constexpr uint8_t kCreateDWordFieldOp = 0x8a;
constexpr uint8_t kLNotOp = 0x92;
constexpr uint8_t kLEqualOp = 0x93;
constexpr uint8_t kIfOp = 0xa0;
constexpr uint8_t kReturnOp = 0xa4;
constexpr uint8_t kExtendedRegion = 0x80;
constexpr uint8_t kExtendedField = 0x81;
constexpr uint8_t kExtendedDevice = 0x82;

Aml little_endian(uint64_t value, size_t size_bytes) {
  Aml aml;
  for (size_t i = 0; i < size_bytes; ++i) aml.append(static_cast<uint8_t>(value >> (8 * i)));
  return aml;
}

// One name segment, padded.
Aml name_segment(std::string_view name) {
  SKIFF_CHECK(!name.empty() && name.size() <= 4);
  Aml aml;
  for (size_t i = 0; i < 4; ++i) {
    const char c = i < name.size() ? name[i] : '_';
    SKIFF_CHECK((c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9'));
    aml.append(static_cast<uint8_t>(c));
  }
  return aml;
}

// 20.2.4 "Package Length Encoding": the length counts itself.
Aml with_length(const Aml& content) {
  const size_t content_bytes = content.bytes().size();
  Aml aml;
  if (content_bytes + 1 < 0x40) {
    aml.append(static_cast<uint8_t>(content_bytes + 1));
    return aml.append(content);
  }
  uint8_t extra_bytes = 1;
  while (content_bytes + 1 + extra_bytes >= (size_t{1} << (4 + 8 * extra_bytes))) ++extra_bytes;
  SKIFF_CHECK(extra_bytes <= 3);
  const size_t length = content_bytes + 1 + extra_bytes;
  aml.append(static_cast<uint8_t>(size_t{extra_bytes} << 6 | (length & 0xf)));
  aml.append(little_endian(length >> 4, extra_bytes));
  return aml.append(content);
}

Aml with_opcode(std::initializer_list<uint8_t> opcode, const Aml& rest) {
  Aml aml(std::vector<uint8_t>{opcode});
  return aml.append(rest);
}

Aml binary(uint8_t opcode, const Aml& left, const Aml& right) {
  Aml aml = with_opcode({opcode}, left);
  return aml.append(right);
}

Aml join(Aml first, std::span<const Aml> rest) {
  for (const Aml& term : rest) first.append(term);
  return first;
}

uint8_t hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
  SKIFF_CHECK(c >= 'a' && c <= 'f');
  return static_cast<uint8_t>(c - 'a' + 10);
}

}  // namespace

Aml& Aml::append(uint8_t byte) {
  bytes_.push_back(byte);
  return *this;
}

Aml& Aml::append(const Aml& other) {
  bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  return *this;
}

Aml aml_integer(uint64_t value) {
  if (value <= 1) return Aml({value == 0 ? kZero : kOne});
  if (value <= UINT8_MAX) return with_opcode({kBytePrefix}, little_endian(value, 1));
  if (value <= UINT16_MAX) return with_opcode({kWordPrefix}, little_endian(value, 2));
  if (value <= UINT32_MAX) return with_opcode({kDWordPrefix}, little_endian(value, 4));
  return with_opcode({kQWordPrefix}, little_endian(value, 8));
}

Aml aml_string(std::string_view text) {
  Aml aml({kStringPrefix});
  for (const char c : text) {
    SKIFF_CHECK(c > 0);
    aml.append(static_cast<uint8_t>(c));
  }
  return aml.append(uint8_t{0});
}

Aml aml_buffer(std::span<const uint8_t> bytes) {
  Aml content = aml_integer(bytes.size());
  content.append(Aml({bytes.begin(), bytes.end()}));
  return with_opcode({kBufferOp}, with_length(content));
}

Aml aml_package(std::initializer_list<Aml> elements) {
  SKIFF_CHECK(elements.size() <= UINT8_MAX);
  Aml count({static_cast<uint8_t>(elements.size())});
  return with_opcode({kPackageOp}, with_length(join(std::move(count), elements)));
}

Aml aml_eisa_id(std::string_view id) {
  SKIFF_CHECK(id.size() == 7);
  uint32_t value = 0;
  for (size_t i = 0; i < 3; ++i) {
    SKIFF_CHECK(id[i] >= 'A' && id[i] <= 'Z');
    value = value << 5 | static_cast<uint32_t>(id[i] - 'A' + 1);
  }
  for (size_t i = 3; i < 7; ++i) value = value << 4 | hex_digit(id[i]);
  return aml_integer(__builtin_bswap32(value));
}

Aml aml_uuid(std::string_view text) {
  // Where in the text the digits of each byte are (19.6.143 "ToUUID").
  constexpr std::array<uint8_t, 16> kDigits = {6,  4,  2,  0,  11, 9,  16, 14,
                                               19, 21, 24, 26, 28, 30, 32, 34};
  SKIFF_CHECK(text.size() == 36);
  std::array<uint8_t, 16> bytes;
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] =
        static_cast<uint8_t>(hex_digit(text[kDigits[i]]) << 4 | hex_digit(text[kDigits[i] + 1U]));
  return aml_buffer(bytes);
}

Aml aml_path(std::string_view path) {
  Aml aml;
  while (!path.empty() && (path.front() == '\\' || path.front() == '^')) {
    aml.append(static_cast<uint8_t>(path.front()));
    path.remove_prefix(1);
  }
  // 20.2.2 "Name Objects Encoding".
  const auto segments = static_cast<uint8_t>(std::ranges::count(path, '.') + 1);
  if (segments == 2) aml.append(kDualNamePrefix);
  if (segments > 2) aml.append(kMultiNamePrefix).append(segments);
  for (uint8_t left = segments; left > 0; --left) {
    const size_t end = std::min(path.find('.'), path.size());
    aml.append(name_segment(path.substr(0, end)));
    path.remove_prefix(left > 1 ? end + 1 : end);
  }
  return aml;
}

Aml aml_name(std::string_view path, const Aml& value) {
  return binary(kNameOp, aml_path(path), value);
}

Aml aml_scope(std::string_view path, std::span<const Aml> terms) {
  return with_opcode({kScopeOp}, with_length(join(aml_path(path), terms)));
}

Aml aml_device(std::string_view path, std::span<const Aml> terms) {
  return with_opcode({kExtendedPrefix, kExtendedDevice}, with_length(join(aml_path(path), terms)));
}

Aml aml_method(std::string_view path, uint8_t arguments, std::span<const Aml> terms) {
  SKIFF_CHECK(arguments <= 7);
  Aml head = aml_path(path);
  head.append(arguments);
  return with_opcode({kMethodOp}, with_length(join(std::move(head), terms)));
}

Aml aml_io_region(std::string_view name, uint16_t port, uint8_t size_bytes) {
  constexpr uint8_t kSystemIo = 1;
  Aml aml = with_opcode({kExtendedPrefix, kExtendedRegion}, aml_path(name));
  return aml.append(kSystemIo).append(aml_integer(port)).append(aml_integer(size_bytes));
}

Aml aml_dword_fields(std::string_view region, std::initializer_list<std::string_view> names) {
  constexpr uint8_t kDWordAccess = 3;
  Aml content = aml_path(region);
  content.append(kDWordAccess);
  for (const std::string_view name : names)
    content.append(name_segment(name)).append(uint8_t{32});  // Bits, as a package length.
  return with_opcode({kExtendedPrefix, kExtendedField}, with_length(content));
}

Aml aml_create_dword_field(const Aml& buffer, uint64_t offset_bytes, std::string_view name) {
  Aml aml = binary(kCreateDWordFieldOp, buffer, aml_integer(offset_bytes));
  return aml.append(aml_path(name));
}

Aml aml_argument(uint8_t index) {
  SKIFF_CHECK(index < 7);
  return Aml({static_cast<uint8_t>(kArg0 + index)});
}

Aml aml_local(uint8_t index) {
  SKIFF_CHECK(index < 8);
  return Aml({static_cast<uint8_t>(kLocal0 + index)});
}

Aml aml_equal(const Aml& left, const Aml& right) { return binary(kLEqualOp, left, right); }

Aml aml_if(const Aml& condition, std::initializer_list<Aml> terms) {
  return with_opcode({kIfOp}, with_length(join(condition, terms)));
}

Aml aml_not(const Aml& condition) { return with_opcode({kLNotOp}, condition); }

Aml aml_store(const Aml& value, const Aml& target) { return binary(kStoreOp, value, target); }

Aml aml_notify(const Aml& device, uint64_t value) {
  return binary(kNotifyOp, device, aml_integer(value));
}

Aml aml_nowhere() { return Aml({kZero}); }

Aml aml_and(const Aml& left, const Aml& right, const Aml& target) {
  Aml aml = binary(kAndOp, left, right);
  return aml.append(target);
}

Aml aml_or(const Aml& left, const Aml& right, const Aml& target) {
  Aml aml = binary(kOrOp, left, right);
  return aml.append(target);
}

Aml aml_return(const Aml& value) { return with_opcode({kReturnOp}, value); }

}  // namespace skiff::firmware
