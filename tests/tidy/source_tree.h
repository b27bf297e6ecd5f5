// SPDX-License-Identifier: GPL-2.0-or-later
// The project's own files as text, for the style rules that are checked by a test.
//
// Thread: the test's. Ownership: values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace skiff::tidy {

struct SourceFile {
  std::string path;  // From the project's root, with '/'.
  std::vector<std::string> lines;

  std::string folder() const;  // "devices/core" is a folder of its own, otherwise the top one.
  bool has_suffix(std::string_view suffix) const { return path.ends_with(suffix); }
  bool is_cpp() const { return has_suffix(".h") || has_suffix(".cc"); }
  bool is_build_file() const { return has_suffix("CMakeLists.txt") || has_suffix(".cmake"); }
  bool is_prose() const { return has_suffix(".md"); }
  bool is_script() const;
};

struct Function {
  size_t first_line = 0;  // From 1.
  size_t line_count = 0;
};

// Every text file outside .git and build, sorted by path.
std::vector<SourceFile> load_source_tree(const std::string& root);

// The includes in quotes, as written.
std::vector<std::string> quoted_includes(const SourceFile& file);

// Function bodies, found by the layout that clang-format gives them: an opening line ending in "{"
// and a closing brace in the same column.
std::vector<Function> functions_of(const SourceFile& file);

// The line without what stands in string literals and comments.
std::string code_of(const std::string& line);

// Does `word` stand in `text` as a word of its own?
bool has_word(std::string_view text, std::string_view word);

}  // namespace skiff::tidy
