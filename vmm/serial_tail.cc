// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/serial_tail.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/chardev/char_backend.h"

namespace skiff::vmm {

class SerialTail::Backend final : public devices::CharBackend {
 public:
  explicit Backend(std::string& bytes) : bytes_(bytes) {}
  void start(devices::CharSink&) override {}
  size_t write(std::span<const uint8_t> data) override {
    bytes_.append(reinterpret_cast<const char*>(data.data()), data.size());
    if (bytes_.size() > 2 * kBytesMax) bytes_.erase(0, bytes_.size() - kBytesMax);
    return data.size();
  }
  void resume_input() override {}
  std::string description() const override { return "kept in memory"; }

 private:
  std::string& bytes_;
};

std::unique_ptr<devices::CharBackend> SerialTail::make_backend() {
  return std::make_unique<Backend>(bytes_);
}

std::string SerialTail::text() const {
  if (bytes_.size() <= kBytesMax) return bytes_;
  const size_t line_end = bytes_.find('\n', bytes_.size() - kBytesMax);
  return line_end == std::string::npos ? bytes_ : bytes_.substr(line_end + 1);
}

}  // namespace skiff::vmm
