// SPDX-License-Identifier: GPL-2.0-or-later
// The house style as numbers and tables: who may include whom, how long a line, a function and a
// file may be, which words do not belong in the tree, and that no file is there for nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/tidy/source_tree.h"

namespace skiff::tidy {
namespace {

constexpr size_t kLineColumnsMax = 100;
constexpr size_t kFunctionLinesMax = 70;
constexpr size_t kFileLinesMax = 600;
constexpr size_t kDocLinesMax = 400;

// The table of ARCHITECTURE.md: a folder, and the folders whose headers it may include besides its
// own.
const std::map<std::string, std::set<std::string>>& include_table() {
  static const std::map<std::string, std::set<std::string>> kTable = {
      {"loop", {}},
      {"block", {"loop"}},
      {"devices/core", {"loop"}},
      {"devices", {"loop", "block", "devices/core"}},
      {"firmware", {"loop", "devices/core"}},
      {"vmm", {"loop", "block", "devices/core", "devices", "firmware"}},
      {"tests", {"loop", "block", "devices/core", "devices", "firmware", "vmm"}},
  };
  return kTable;
}

// A third-party header, and the path prefixes that may include it.
const std::map<std::string, std::vector<std::string>>& third_party_table() {
  static const std::map<std::string, std::vector<std::string>> kTable = {
      {"<linux/kvm.h>", {"vmm/kvm/", "tests/vmm/"}},
      {"<liburing.h>", {"loop/", "block/", "tests/"}},
      {"<libaio.h>", {"block/"}},
      {"<libnbd.h>", {"block/nbd/", "tests/block/nbd/"}},
      {"<CLI/", {"vmm/"}},
      {"<nlohmann/", {"vmm/", "tests/"}},
      {"<mutex>", {"loop/"}},
      {"<shared_mutex>", {"loop/"}},
      {"<condition_variable>", {"loop/"}},
  };
  return kTable;
}

const std::vector<SourceFile>& tree() {
  static const std::vector<SourceFile> kTree = load_source_tree(SKIFF_SOURCE_DIR);
  return kTree;
}

std::string at(const SourceFile& file, size_t line) {
  return file.path + ":" + std::to_string(line);
}

TEST(Tidy, TheTreeIsFound) { EXPECT_GT(tree().size(), 30u); }

TEST(Tidy, EveryFolderIncludesOnlyWhatTheTableAllows) {
  for (const SourceFile& file : tree()) {
    if (!file.is_cpp()) continue;
    const auto row = include_table().find(file.folder());
    if (row == include_table().end()) continue;
    for (const std::string& include : quoted_includes(file)) {
      const std::string folder = SourceFile{include, {}}.folder();
      EXPECT_TRUE(folder == row->first || row->second.contains(folder) || folder == "spdlog")
          << file.path << " includes " << include;
    }
  }
}

TEST(Tidy, ThirdPartyHeadersStayWhereTheyBelong) {
  for (const SourceFile& file : tree()) {
    if (!file.is_cpp()) continue;
    for (const std::string& line : file.lines) {
      if (!line.starts_with("#include <")) continue;
      for (const auto& [header, allowed] : third_party_table()) {
        if (line.find(header) == std::string::npos) continue;
        EXPECT_TRUE(std::ranges::any_of(
            allowed, [&](const std::string& prefix) { return file.path.starts_with(prefix); }))
            << file.path << " includes " << header;
      }
    }
  }
}

TEST(Tidy, LinesFunctionsAndFilesAreShort) {
  for (const SourceFile& file : tree()) {
    if (!file.is_cpp()) continue;
    EXPECT_LE(file.lines.size(), kFileLinesMax) << file.path;
    for (size_t i = 0; i < file.lines.size(); ++i)
      EXPECT_LE(file.lines[i].size(), kLineColumnsMax) << at(file, i + 1);
    for (const Function& function : functions_of(file))
      EXPECT_LE(function.line_count, kFunctionLinesMax) << at(file, function.first_line);
  }
}

TEST(Tidy, EverySourceFileNamesItsLicence) {
  for (const SourceFile& file : tree()) {
    if (!file.is_cpp() && !file.is_build_file() && !file.is_script() && !file.has_suffix(".c"))
      continue;
    const size_t head = std::min<size_t>(file.lines.size(), 3);
    const bool named = std::any_of(
        file.lines.begin(), file.lines.begin() + static_cast<long>(head), [](const auto& line) {
          return line.find("SPDX-License-Identifier: GPL-2.0-or-later") != std::string::npos;
        });
    EXPECT_TRUE(named) << file.path;
  }
}

TEST(Tidy, EveryHeaderSaysWhatItIsAndOnWhichThread) {
  for (const SourceFile& file : tree()) {
    if (!file.has_suffix(".h") || file.path.starts_with("tests/")) continue;
    EXPECT_TRUE(std::ranges::count(file.lines, "#pragma once") == 1) << file.path;
    const bool thread = std::ranges::any_of(
        file.lines, [](const auto& line) { return line.find("Thread:") != std::string::npos; });
    EXPECT_TRUE(thread) << file.path << " has no line that starts with Thread:";
  }
}

TEST(Tidy, NoBannedWords) {
  // Written in two parts, so that this file passes its own test.
  const std::vector<std::string> banned = {std::string("TO") + "DO", std::string("FIX") + "ME",
                                           std::string("XX") + "X", std::string("HA") + "CK"};
  for (const SourceFile& file : tree())
    for (size_t i = 0; i < file.lines.size(); ++i)
      for (const std::string& word : banned)
        EXPECT_FALSE(has_word(file.lines[i], word)) << at(file, i + 1) << ": " << word;
}

TEST(Tidy, NoExceptionsAndNoBareThreading) {
  const std::vector<std::string> anywhere = {"throw", "catch", "try"};
  const std::vector<std::string> outside_loop = {"std::mutex", "std::thread", "std::jthread",
                                                 "thread_local", "std::condition_variable"};
  for (const SourceFile& file : tree()) {
    if (!file.is_cpp()) continue;
    const bool may_thread = file.path.starts_with("loop/") || file.path.starts_with("tests/");
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string code = code_of(file.lines[i]);
      for (const std::string& word : anywhere)
        EXPECT_FALSE(has_word(code, word)) << at(file, i + 1) << ": " << word;
      if (may_thread) continue;
      for (const std::string& word : outside_loop)
        EXPECT_FALSE(has_word(code, word)) << at(file, i + 1) << ": " << word;
    }
  }
}

TEST(Tidy, NoSourceFileIsAnOrphan) {
  std::set<std::string> built;     // Names that a build file mentions.
  std::set<std::string> included;  // Headers that somebody includes.
  for (const SourceFile& file : tree()) {
    if (file.is_cpp())
      for (const std::string& include : quoted_includes(file)) included.insert(include);
    if (!file.is_build_file()) continue;
    for (const std::string& line : file.lines) {
      size_t start = 0;
      while (start < line.size()) {
        const size_t end = std::min(line.find_first_of(" ()\"", start), line.size());
        const std::string word = line.substr(start, end - start);
        if (word.ends_with(".cc") || word.ends_with(".c") || word.ends_with(".S"))
          built.insert(word.substr(word.rfind('/') + 1));
        start = end + 1;
      }
    }
  }
  for (const SourceFile& file : tree()) {
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    const bool compiled = name.ends_with(".cc") || name.ends_with(".c") || name.ends_with(".S");
    EXPECT_TRUE(!compiled || built.contains(name)) << file.path << " is in no build file";
    const bool header = name.ends_with(".h");
    EXPECT_TRUE(!header || included.contains(file.path)) << file.path << " is included by nobody";
  }
}

TEST(Tidy, EveryDocumentIsShortAndReachable) {
  std::string prose;
  for (const SourceFile& file : tree())
    if (file.is_prose())
      for (const std::string& line : file.lines) prose.append(line).append("\n");
  for (const SourceFile& file : tree()) {
    if (!file.is_prose()) continue;
    EXPECT_LE(file.lines.size(), kDocLinesMax) << file.path;
    if (!file.path.starts_with("docs/")) continue;
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    EXPECT_NE(prose.find(name), std::string::npos) << file.path << " is named by no document";
  }
}

}  // namespace
}  // namespace skiff::tidy
