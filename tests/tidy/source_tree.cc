// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/tidy/source_tree.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace skiff::tidy {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 9> kTextSuffixes = {".h",     ".cc",  ".c",    ".S", ".md",
                                                           ".cmake", ".txt", ".json", ".sh"};

bool is_text(const fs::path& path) {
  const std::string name = path.filename().string();
  if (std::ranges::any_of(kTextSuffixes, [&](auto suffix) { return name.ends_with(suffix); }))
    return true;
  std::ifstream file(path);
  std::array<char, 2> magic = {};
  file.read(magic.data(), magic.size());
  return magic == std::array<char, 2>{'#', '!'};
}

std::vector<std::string> read_lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

size_t indent_of(const std::string& line) {
  const size_t column = line.find_first_not_of(' ');
  return column == std::string::npos ? 0 : column;
}

bool opens_function(const std::string& line) {
  static const std::regex kOpening(
      R"(\)\s*(const|noexcept|override|final|SKIFF_\w+(\(.*\))?|->.*|\s)*\s*\{$)");
  static const std::regex kControl(
      R"(^\s*(\}\s*)?(if|for|while|switch|do|else|namespace|extern)\b)");
  return std::regex_search(line, kOpening) && !std::regex_search(line, kControl);
}

}  // namespace

bool SourceFile::is_script() const { return !lines.empty() && lines.front().starts_with("#!"); }

std::string SourceFile::folder() const {
  if (path.starts_with("devices/core/")) return "devices/core";
  return path.substr(0, path.find('/'));
}

std::vector<SourceFile> load_source_tree(const std::string& root) {
  std::vector<SourceFile> files;
  auto entry = fs::recursive_directory_iterator(root);
  for (; entry != fs::recursive_directory_iterator(); ++entry) {
    const std::string name = entry->path().filename().string();
    if (entry->is_directory() && (name == ".git" || (entry.depth() == 0 && name == "build"))) {
      entry.disable_recursion_pending();
      continue;
    }
    if (!entry->is_regular_file() || !is_text(entry->path())) continue;
    files.push_back(
        {fs::relative(entry->path(), root).generic_string(), read_lines(entry->path())});
  }
  std::ranges::sort(files, {}, &SourceFile::path);
  return files;
}

std::vector<std::string> quoted_includes(const SourceFile& file) {
  static const std::regex kInclude(R"re(^\s*#\s*include\s+"([^"]+)")re");
  std::vector<std::string> includes;
  std::smatch match;
  for (const std::string& line : file.lines)
    if (std::regex_search(line, match, kInclude)) includes.push_back(match[1]);
  return includes;
}

std::vector<Function> functions_of(const SourceFile& file) {
  std::vector<Function> functions;
  for (size_t i = 0; i < file.lines.size(); ++i) {
    if (!opens_function(file.lines[i])) continue;
    // The signature may have begun on earlier, less indented lines; the body closes in the column
    // where it began. Lambdas count as part of the function that they stand in.
    size_t first = i;
    while (first > 0 && indent_of(file.lines[first]) > 2) --first;
    if (file.lines[first].find('(') == std::string::npos) continue;
    const std::string closing = std::string(indent_of(file.lines[first]), ' ') + "}";
    for (size_t end = i + 1; end < file.lines.size(); ++end) {
      if (!file.lines[end].starts_with(closing)) continue;
      functions.push_back({first + 1, end - first + 1});
      break;
    }
  }
  return functions;
}

std::string code_of(const std::string& line) {
  std::string code;
  bool in_string = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (!in_string && line.compare(i, 2, "//") == 0) break;
    if (in_string && line[i] == '\\') {
      ++i;
      continue;
    }
    if (line[i] == '"') in_string = !in_string;
    if (!in_string) code.push_back(line[i]);
  }
  return code;
}

bool has_word(std::string_view text, std::string_view word) {
  const auto is_part = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  };
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const bool starts = at == 0 || !is_part(text[at - 1]);
    const size_t end = at + word.size();
    if (starts && (end == text.size() || !is_part(text[end]))) return true;
  }
  return false;
}

}  // namespace skiff::tidy
