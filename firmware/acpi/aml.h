// SPDX-License-Identifier: GPL-2.0-or-later
// Aml: writes ACPI machine language, a term at a time (ACPI 6.5, chapter 20).
//
// A term is a value that is put together from the terms inside it:
//
//   Aml device = aml_device("COM1", {aml_name("_HID", aml_eisa_id("PNP0501")),
//                                    aml_name("_CRS", aml_resources({aml_io(0x3f8, 8)}))});
//
// Names are ours, never a user's: a malformed one ends the process.
// Thread: any; values. Ownership: each term owns its bytes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace skiff::firmware {

class Aml {
 public:
  Aml() = default;
  explicit Aml(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}

  const std::vector<uint8_t>& bytes() const { return bytes_; }

  Aml& append(uint8_t byte);
  Aml& append(const Aml& other);

 private:
  std::vector<uint8_t> bytes_;
};

// Data. Integers take the shortest encoding.
Aml aml_integer(uint64_t value);
Aml aml_string(std::string_view text);
Aml aml_buffer(std::span<const uint8_t> bytes);
Aml aml_package(std::initializer_list<Aml> elements);
// "PNP0A08" as the integer that _HID takes (ACPI 6.5, 19.3.4 "EISAID").
Aml aml_eisa_id(std::string_view id);
// "33db4d5b-1ff7-401c-9657-7441c03dd766" as a buffer in its mixed byte order.
Aml aml_uuid(std::string_view text);

// Names: "\\_SB_", "_CRS", "^ABCD", "\\_SB_.PCI0.COM1"; segments of one to four characters, padded
// with '_'.
Aml aml_path(std::string_view path);

// Named objects.
Aml aml_name(std::string_view path, const Aml& value);
Aml aml_scope(std::string_view path, std::span<const Aml> terms);
Aml aml_device(std::string_view path, std::span<const Aml> terms);
inline Aml aml_device(std::string_view path, std::initializer_list<Aml> terms) {
  return aml_device(path, std::span(terms.begin(), terms.size()));
}
Aml aml_method(std::string_view path, uint8_t arguments, std::span<const Aml> terms);
inline Aml aml_method(std::string_view path, uint8_t arguments, std::initializer_list<Aml> terms) {
  return aml_method(path, arguments, std::span(terms.begin(), terms.size()));
}
// `size_bytes` I/O ports, and names for the 32-bit registers at its start, one after the other.
Aml aml_io_region(std::string_view name, uint16_t port, uint8_t size_bytes);
Aml aml_dword_fields(std::string_view region, std::initializer_list<std::string_view> names);
Aml aml_create_dword_field(const Aml& buffer, uint64_t offset_bytes, std::string_view name);

// Statements and expressions.
Aml aml_argument(uint8_t index);
Aml aml_local(uint8_t index);
Aml aml_equal(const Aml& left, const Aml& right);
Aml aml_if(const Aml& condition, std::initializer_list<Aml> terms);
Aml aml_not(const Aml& condition);
Aml aml_store(const Aml& value, const Aml& target);
Aml aml_notify(const Aml& device, uint64_t value);
Aml aml_nowhere();  // As a target: the result is only a value.
Aml aml_and(const Aml& left, const Aml& right, const Aml& target);
Aml aml_or(const Aml& left, const Aml& right, const Aml& target);
Aml aml_return(const Aml& value);

}  // namespace skiff::firmware
