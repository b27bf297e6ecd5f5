// SPDX-License-Identifier: GPL-2.0-or-later
// Result<T>: a value or an Error, for whatever can fail for reasons outside our own code.
//
// Member names follow std::expected, so that a later swap is mechanical.
// Thread: any; a value type.
//
//   Result<UniqueFd> fd = open_file(path);
//   if (!fd) return fd.error().with_context("Opening the disk", path);
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "loop/check.h"

namespace skiff::loop {

// What a caller may want to tell apart. Everything else is in the message.
enum class ErrorKind {
  kInvalidArgument,  // The user asked for something impossible; the message names what is allowed.
  kNotFound,
  kPermission,
  kBusy,         // Somebody else holds it: a locked image, a used address.
  kUnsupported,  // This kernel, file or build cannot do it.
  kCorrupt,      // Data from outside breaks its own rules: a kernel, an image, a saved state.
  kExhausted,    // Memory, descriptors, disk space.
  kIo,           // The system refused; os_error() says how.
  kCancelled,
};

// Facts first, cause last: "Opening disk a.img: No such file or directory".
class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string message, int os_error = 0)
      : kind_(kind), os_error_(os_error), message_(std::move(message)) {}

  // From errno or a -errno made positive; the kind follows from the number, the text is appended.
  static Error from_errno(int os_error, std::string_view what);

  ErrorKind kind() const { return kind_; }
  int os_error() const { return os_error_; }  // 0 when the system was not involved.
  const std::string& message() const { return message_; }

  // The same error with "what subject: " put before its message.
  Error with_context(std::string_view what, std::string_view subject = {}) const;

 private:
  ErrorKind kind_;
  int os_error_;
  std::string message_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    SKIFF_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    SKIFF_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    SKIFF_CHECK(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    SKIFF_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  void value() const { SKIFF_CHECK(has_value()); }
  const Error& error() const {
    SKIFF_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<std::monostate, Error> state_;
};

}  // namespace skiff::loop

// Returns the error of a Result<...> expression from a function that returns a Result itself.
#define SKIFF_RETURN_IF_ERROR(expression)                                             \
  do {                                                                                \
    if (auto skiff_result = (expression); !skiff_result) return skiff_result.error(); \
  } while (false)
