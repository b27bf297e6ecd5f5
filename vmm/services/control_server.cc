// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/services/control_server.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "block/units.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/unix_socket.h"
#include "vmm/config/option_text.h"
#include "vmm/disk_removal.h"
#include "vmm/disk_status.h"
#include "vmm/machine_control.h"
#include "vmm/services/status_json.h"

namespace skiff::vmm {
namespace {

using loop::Result;
using Json = nlohmann::json;

constexpr size_t kClientsMax = 16;
constexpr size_t kLineBytesMax = 64 * 1024;
// A client that does not read its answers is dropped when this much waits for it.
constexpr size_t kOutputBytesMax = 256 * 1024;

std::string answer_text(const Json& id, Json answer) {
  if (!id.is_null()) answer["id"] = id;
  return answer.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json refusal(const std::string& why) { return {{"ok", false}, {"error", why}}; }

// Empty when it is not there, or no text.
std::string text_of(const Json& request, const char* key) {
  const auto value = request.find(key);
  return value != request.end() && value->is_string() ? value->get<std::string>() : "";
}

Json disk_json(const DiskStatus& disk) {
  Json json = {{"disk", disk.name},
               {"path", disk.path},
               {"size_bytes", disk.size_bytes},
               {"readonly", disk.is_read_only},
               {"bus", disk.pci ? "pci" : "mmio"}};
  if (!disk.serial.empty()) json["serial"] = disk.serial;
  add_activity(json, disk.activity);
  if (disk.pci) {
    json["pci_slot"] = disk.pci->slot;
    json["state"] = disk_plug_state_name(disk.pci->state);
  }
  return json;
}

Json status_answer(const MachineStatus& status) {
  Json answer = {{"ok", true},
                 {"state", machine_state_name(status.state)},
                 {"vcpus", status.vcpus},
                 {"memory_bytes", status.memory_bytes},
                 {"resets", status.resets}};
  if (!status.stop_reason.empty()) answer["stop_reason"] = status.stop_reason;
  answer["disks"] = Json::array();
  for (const DiskStatus& disk : status.disks) answer["disks"].push_back(disk_json(disk));
  return answer;
}

// Nothing when the members are wrong; then `answer` has been called.
std::optional<DiskRemoval> read_removal(const Json& request,
                                        const std::function<void(const Json&)>& answer) {
  constexpr int64_t kSecondsMax = 3600;
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  DiskRemoval removal;
  const Json force = request.value("force", Json(false));
  const Json seconds = request.value("timeout", Json(removal.timeout_ns / kNsPerSecond));
  if (!force.is_boolean()) {
    answer(refusal("\"force\" is neither true nor false"));
    return std::nullopt;
  }
  const int64_t timeout_s = seconds.is_number_integer() ? seconds.get<int64_t>() : 0;
  if (timeout_s < 1 || timeout_s > kSecondsMax) {
    answer(refusal("\"timeout\" is no whole number of seconds (allowed: 1 to 3600)"));
    return std::nullopt;
  }
  removal.is_forced = force.get<bool>();
  removal.timeout_ns = timeout_s * kNsPerSecond;
  return removal;
}

}  // namespace

struct ControlServer::Client {
  loop::UniqueFd fd;
  std::unique_ptr<loop::FdWatcher> watcher;
  std::string input;
  std::string output;
  bool input_ended = false;
  uint32_t unanswered = 0;
};

Result<std::unique_ptr<ControlServer>> ControlServer::create(loop::EventLoop& loop,
                                                             MachineControl& machine,
                                                             const std::string& path) {
  auto listener = loop::listen_unix(path);
  if (!listener) return listener.error().with_context("Control socket");
  return std::unique_ptr<ControlServer>(
      new ControlServer(loop, machine, *std::move(listener), path));
}

ControlServer::ControlServer(loop::EventLoop& loop, MachineControl& machine,
                             loop::UniqueFd listener, std::string path)
    : loop_(loop),
      machine_(machine),
      listener_(std::move(listener)),
      path_(std::move(path)),
      accept_watcher_(loop, listener_.get(), loop::Priority::kService,
                      [this](uint32_t) { accept_clients(); }) {
  accept_watcher_.watch(POLLIN);
}

ControlServer::~ControlServer() {
  ::unlink(path_.c_str());
  for (const auto& client : clients_) client->watcher.reset();
}

void ControlServer::accept_clients() {
  loop::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  if (clients_.size() >= kClientsMax) {
    SKIFF_LOG_LIMITED(kWarn, "Control socket: {} clients are connected, one more is turned away",
                      clients_.size());
    return;
  }
  auto client = std::make_shared<Client>();
  client->fd = std::move(fd);
  // The watcher goes with the client, so that the callback may hold a plain pointer.
  client->watcher =
      std::make_unique<loop::FdWatcher>(loop_, client->fd.get(), loop::Priority::kService,
                                        [this, weak = std::weak_ptr(client)](uint32_t events) {
                                          if (auto strong = weak.lock()) serve(strong, events);
                                        });
  client->watcher->watch(POLLIN);
  clients_.push_back(std::move(client));
}

void ControlServer::serve(const std::shared_ptr<Client>& client, uint32_t events) {
  if ((events & POLLOUT) != 0) flush(*client);
  if ((events & (POLLIN | POLLHUP | POLLERR)) == 0 || !client->fd) return;
  char buffer[4096];
  const ssize_t got = ::read(client->fd.get(), buffer, sizeof(buffer));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    // What was asked before the end of input is still answered.
    client->input_ended = true;
    if (got < 0 || (client->unanswered == 0 && client->output.empty())) return drop(*client);
    client->watcher->watch(client->output.empty() ? 0 : POLLOUT);
    return;
  }
  client->input.append(buffer, static_cast<size_t>(got));
  for (size_t end = client->input.find('\n'); end != std::string::npos && client->fd;
       end = client->input.find('\n')) {
    const std::string line = client->input.substr(0, end);
    client->input.erase(0, end + 1);
    if (line.find_first_not_of(" \t\r") != std::string::npos) handle_line(client, line);
  }
  if (client->input.size() > kLineBytesMax) drop(*client);
}

void ControlServer::handle_line(const std::shared_ptr<Client>& client, const std::string& line) {
  const Json request = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  const bool is_object = request.is_object();
  const Json id = is_object && request.contains("id") ? request["id"] : Json();
  ++client->unanswered;
  const auto answer = [this, client, id](const Json& body) {
    --client->unanswered;
    client->output += answer_text(id, body);
    flush(*client);
  };
  const auto answer_ok = [answer] { answer(Json{{"ok", true}}); };
  if (!is_object || !request.contains("command") || !request["command"].is_string())
    return answer(refusal("Not a JSON object with a \"command\", like {\"command\": \"status\"}"));

  const auto command = request["command"].get<std::string>();
  if (command == "status") return answer(status_answer(machine_.status()));
  if (command == "pause") return machine_.pause(answer_ok);
  if (command == "resume") return machine_.resume(answer_ok);
  if (command == "reset") return machine_.reset(answer_ok);
  if (command == "power-button") {
    // Whether the guest listens is worth knowing: one that does not will stay up.
    const bool listens = machine_.press_power_button();
    return answer(Json{{"ok", true}, {"guest_listens", listens}});
  }
  if (handle_disk_command(command, request, answer)) return;
  if (command == "quit") {
    answer_ok();  // First, while there is somebody to answer.
    return machine_.quit();
  }
  answer(refusal(
      fmt::format("Unknown command \"{}\" (allowed: status, pause, resume, reset, "
                  "power-button, set-faults, set-submit, resize-disk, add-disk, remove-disk, quit)",
                  command)));
}

bool ControlServer::handle_disk_command(const std::string& command, const Json& request,
                                        const Answer& answer) {
  const std::string disk = text_of(request, "disk");
  const auto answer_result = [answer](const loop::Result<void>& done) {
    answer(done ? Json{{"ok", true}} : refusal(done.error().message()));
  };
  if (command == "set-faults") {
    // Nothing would be the end of all faults.
    if (!request.contains("rules") || !request["rules"].is_string()) {
      answer(refusal("\"rules\" is no text, like \"error=EIO\" or \"\""));
      return true;
    }
    answer_result(machine_.set_disk_faults(disk, text_of(request, "rules")));
    return true;
  }
  if (command == "set-submit") {
    answer_result(machine_.set_disk_submit(disk, text_of(request, "submit")));
    return true;
  }
  if (command == "resize-disk") {
    const bool has_size = request.contains("size");
    const auto size_bytes = block::parse_bytes(text_of(request, "size"));
    if (has_size && !size_bytes)
      answer(refusal("\"size\" is no size (allowed: a text like \"8G\" or \"8589934592\")"));
    else
      machine_.resize_disk(disk, size_bytes, answer_result);
    return true;
  }
  if (command == "add-disk") {
    const std::string option =
        request.value("disk", Json()).dump(-1, ' ', false, Json::error_handler_t::replace);
    machine_.add_disk(option, [answer](const loop::Result<std::string>& added) {
      answer(added ? Json{{"ok", true}, {"disk", *added}} : refusal(added.error().message()));
    });
    return true;
  }
  if (command == "remove-disk") {
    if (const auto removal = read_removal(request, answer))
      machine_.remove_disk(disk, *removal, answer_result);
    return true;
  }
  return false;
}

void ControlServer::flush(Client& client) {
  while (client.fd && !client.output.empty()) {
    const ssize_t sent =
        ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return drop(client);
    if (sent < 0) break;
    client.output.erase(0, static_cast<size_t>(sent));
  }
  if (!client.fd) return;
  if (client.output.size() > kOutputBytesMax) return drop(client);
  if (client.input_ended && client.output.empty() && client.unanswered == 0) return drop(client);
  const uint32_t input = client.input_ended ? 0 : POLLIN;
  client.watcher->watch(client.output.empty() ? input : (input | POLLOUT));
}

void ControlServer::drop(Client& client) {
  client.watcher.reset();
  client.fd.reset();
  clients_.remove_if([&client](const auto& other) { return other.get() == &client; });
}

}  // namespace skiff::vmm
