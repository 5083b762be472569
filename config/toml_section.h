// One table of the configuration file, read strictly. The caller lists the permitted settings, and
// the constructor refuses any other before it reads values. Settings are read by name and type.
// Every error message names the line and the correction.
#pragma once

#include <toml++/toml.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/duration.h"
#include "config/options.h"

namespace latchkey {

[[nodiscard]] std::string listed(const std::set<std::string>& names);
// " Did you mean `x`?" if a known name is similar, else the list of known names.
[[nodiscard]] std::string did_you_mean(const std::string& name, const std::set<std::string>& known);

// The names of all settings that a table may hold.
using Settings = std::set<std::string>;

class Section {
 public:
  // Throws ConfigError if the table holds a setting that is not in `known`. This check comes first,
  // because a misspelt setting would otherwise be reported as a missing one.
  Section(const toml::table& table, std::string title, const std::string& path, Settings known)
      : table_(table), title_(std::move(title)), path_(path), known_(std::move(known)) {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (known_.contains(name)) continue;
      refuse("there is no setting `" + name + "`." + did_you_mean(name, known_), &node);
    }
  }

  [[nodiscard]] std::size_t line() const { return table_.source().begin.line; }
  // The line of a setting, or the first line of the section if the setting is absent.
  [[nodiscard]] std::size_t line_of(const std::string& key) const {
    const toml::node* node = table_.get(key);
    return node != nullptr ? node->source().begin.line : line();
  }

  [[noreturn]] void refuse(const std::string& what, const toml::node* at = nullptr) const {
    refuse_line(what, at != nullptr ? at->source().begin.line : line());
  }
  [[noreturn]] void refuse_line(const std::string& what, std::size_t line) const {
    throw ConfigError(path_ + ":" + std::to_string(line) + ": " +
                      (title_.empty() ? "" : title_ + ": ") + what);
  }

  [[nodiscard]] const toml::node* find(const std::string& key) const {
    if (!known_.contains(key)) {
      throw std::logic_error("setting `" + key + "` is read, but not among those of " + title_);
    }
    return table_.get(key);
  }

  template <typename T>
  std::optional<T> value(const std::string& key, const char* type) const {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    const auto found = node->value_exact<T>();
    if (!found) refuse("`" + key + "` must be " + type + ".", node);
    return found;
  }

  std::optional<std::string> text(const std::string& key) const {
    auto found = value<std::string>(key, "a string");
    if (found && found->empty()) refuse("`" + key + "` is empty.", find(key));
    if (found) check_text(key, *found);
    return found;
  }
  std::string needed_text(const std::string& key, const std::string& example) const {
    if (auto found = text(key)) return *found;
    refuse("`" + key + "` is missing. Write, for example, " + key + " = \"" + example + "\".");
  }
  bool flag(const std::string& key) const {
    return value<bool>(key, "true or false").value_or(false);
  }

  std::optional<std::int64_t> integer(const std::string& key, std::int64_t min,
                                      std::int64_t max) const {
    const auto found = value<std::int64_t>(key, "a whole number");
    if (found && (*found < min || *found > max)) {
      refuse("`" + key + "` must be " + std::to_string(min) + " to " + std::to_string(max) + ".",
             find(key));
    }
    return found;
  }

  void duration(const std::string& key, std::chrono::nanoseconds& setting,
                std::chrono::nanoseconds min) const {
    const auto found = text(key);
    if (!found) return;
    const auto parsed = parse_duration(*found);
    if (!parsed) {
      refuse("`" + key +
                 "` is no duration. Write a number and a unit, such as \"250ms\", \"5s\","
                 " \"10m\" or \"1h\".",
             find(key));
    }
    if (*parsed < min) {
      refuse(
          "`" + key + "` is too short: at least " +
              std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(min).count()) +
              "ms.",
          find(key));
    }
    setting = *parsed;
  }

  std::optional<std::vector<std::string>> texts(const std::string& key) const {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    const toml::array* array = node->as_array();
    std::vector<std::string> list;
    for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const auto item = (*array)[i].value_exact<std::string>();
      if (item) check_text(key, *item);
      if (item) list.push_back(*item);
    }
    if (array == nullptr || list.size() != array->size()) {
      refuse("`" + key + "` must be a list of strings, such as [\"a\", \"b\"].", node);
    }
    return list;
  }

  // Reads the sub-table [key], or the sub-tables [[key]], with `read`.
  template <typename Read>
  void table(const std::string& key, Settings known, Read read) const {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_table()) refuse("`" + key + "` must be a table, [" + key + "].", node);
    Section section(*node->as_table(), "[" + key + "]", path_, std::move(known));
    read(section);
  }
  template <typename Read>
  void tables(const std::string& key, const Settings& known, Read read) const {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_array_of_tables()) {
      refuse("`" + key + "` must be a list of tables: write [[" + key + "]], with two brackets.",
             node);
    }
    for (const toml::node& item : *node->as_array()) {
      Section section(*item.as_table(), "[[" + key + "]]", path_, known);
      read(section);
    }
  }

 private:
  void check_text(const std::string& key, const std::string& text) const {
    if (text.find('\0') != std::string::npos) refuse("`" + key + "` holds a zero byte.", find(key));
  }

  const toml::table& table_;
  std::string title_;
  const std::string& path_;
  Settings known_;
};

}  // namespace latchkey
