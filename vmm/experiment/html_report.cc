// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/html_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/latency_histogram.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/statistics.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c1c1e; --dim: #6a6a70; --line: #d8d8dc;
  --grid: #e4e4e8; --good: #00664a; --bad: #a33a00; --row: #f6f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17181b; --ink: #e8e8ea; --dim: #9a9aa2; --line: #3a3b40; --grid: #303136;
    --good: #5fd0a5; --bad: #ff9a66; --row: #1f2024; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif;
  margin: 2rem auto; max-width: 82rem; padding: 0 1rem; }
h1 { margin-bottom: 0.2rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.question { font-size: 1.1rem; color: var(--dim); max-width: 52rem; }
.scroll { overflow-x: auto; } .glance { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
table { border-collapse: collapse; margin: 0.8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.55rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
tbody tr:nth-child(even) { background: var(--row); }
thead th { border-bottom: 2px solid var(--line); }
small, .dim, .twin { color: var(--dim); } small { display: block; font-size: 0.78rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
td.failed { text-align: left; white-space: normal; color: var(--bad); }
.note { border-left: 4px solid var(--bad); padding: 0.2rem 0.8rem; }
.cdf { max-width: 100%; height: auto; } .cdf .paper { fill: var(--paper); }
.cdf .grid { stroke: var(--grid); } .cdf text { fill: var(--ink); }
.cdf [stroke="#000000"] { stroke: var(--ink); }
code { font-size: 0.85rem; } details { margin: 0.6rem 0; } summary { cursor: pointer; }
)";

// For text and for attributes. A failing child's words may be any bytes.
std::string escaped(std::string_view text) {
  using Json = nlohmann::json;
  const std::string utf8 =
      Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
          .get<std::string>();
  std::string out;
  for (const char c : utf8) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += ' ';
    else
      out += c;
  }
  return out;
}

// Three digits that count: 0.0123, 1.23, 12.3, 123, 12300.
std::string number(double value) {
  if (value == 0) return "0";
  const double size = std::fabs(value);
  if (size >= 100) return fmt::format("{:.0f}", value);
  if (size >= 10) return fmt::format("{:.1f}", value);
  if (size >= 1) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3g}", value);
}

// As precise as anybody wants a factor.
std::string factor(double ratio) {
  if (ratio >= 100) return fmt::format("{:.0f}", ratio);
  return ratio >= 10 ? fmt::format("{:.1f}", ratio) : fmt::format("{:.2f}", ratio);
}

// Cells that are compared with each other.
struct Group {
  std::string name;
  std::vector<const CellResult*> cells;
};

std::vector<Group> groups_of(const ExperimentResult& result) {
  std::vector<Group> groups;
  for (const CellResult& cell : result.cells) {
    const auto known = std::ranges::find(groups, cell.cell.group, &Group::name);
    if (known != groups.end())
      known->cells.push_back(&cell);
    else
      groups.push_back({cell.cell.group, {&cell}});
  }
  return groups;
}

// What this cell is called among those it is compared with.
std::string short_name(const ExperimentResult& result, const CellResult& cell) {
  const char* again = cell.cell.is_twin ? " (again)" : "";
  if (result.compare == "run") return cell.cell.run + again;
  for (const auto& [option, value] : cell.cell.options)
    if (option == result.compare) return value + again;
  return cell.cell.name;
}

const char* class_of(Verdict verdict, bool more_is_better) {
  if (verdict == Verdict::kMore) return more_is_better ? "good" : "bad";
  if (verdict == Verdict::kLess) return more_is_better ? "bad" : "good";
  return "dim";
}

struct Compared {
  Interval ratio;
  Verdict verdict = Verdict::kUnknown;
};

std::optional<Compared> compared(const ExperimentResult& result, const CellResult& cell,
                                 const MetricInfo& info) {
  const CellResult* baseline = baseline_of(result, cell);
  if (baseline == nullptr) return std::nullopt;
  const auto ratio = paired_ratio(cell, *baseline, info.name);
  if (!ratio) return std::nullopt;
  const size_t rounds =
      std::min(values_of(cell, info.name).size(), values_of(*baseline, info.name).size());
  return Compared{*ratio, judge(*ratio, group_spread(result, cell.cell.group, info.name), rounds)};
}

std::string metric_cell(const ExperimentResult& result, const CellResult& cell,
                        const MetricInfo& info) {
  const std::vector<double> values = values_of(cell, info.name);
  if (values.empty()) return "<td></td>";
  const Interval interval = median_interval(values);
  std::string html =
      fmt::format("<td>{}<small>{} to {}</small>", number(interval.middle / info.unit),
                  number(interval.low / info.unit), number(interval.high / info.unit));
  if (const auto beside = compared(result, cell, info)) {
    html +=
        fmt::format("<small><span class=\"{}\">&#215;{}</span> ({} to {})</small>",
                    class_of(beside->verdict, info.more_is_better), factor(beside->ratio.middle),
                    factor(beside->ratio.low), factor(beside->ratio.high));
  }
  return html + "</td>";
}

std::string group_table(const ExperimentResult& result, const Group& group) {
  const std::vector<MetricInfo> metrics = shown_metrics(result);
  std::string html = fmt::format("<div class=\"scroll\"><table><thead><tr><th>{}</th>",
                                 escaped(result.compare.empty() ? "cell" : result.compare));
  for (const MetricInfo& info : metrics)
    html += fmt::format("<th scope=\"col\">{}</th>", escaped(info.title));
  html += "</tr></thead><tbody>\n";
  for (const CellResult* cell : group.cells) {
    html += fmt::format("<tr{}><td>{}</td>", cell->cell.is_twin ? " class=\"twin\"" : "",
                        escaped(short_name(result, *cell)));
    if (values_of(*cell, "iops").empty()) {
      const std::string why = first_failure(*cell);
      html += fmt::format("<td class=\"failed\" colspan=\"{}\">{}</td>", metrics.size(),
                          escaped(why.empty() ? "not measured" : why));
    } else {
      for (const MetricInfo& info : metrics) html += metric_cell(result, *cell, info);
    }
    html += "</tr>\n";
  }
  html += "</tbody></table></div>\n";
  if (const auto spread = group_spread(result, group.name, "iops"))
    html += fmt::format(
        "<p class=\"dim\">The same measured twice (A/A) differs by up to {:.1f} % in "
        "IOPS here.</p>\n",
        100 * *spread);
  return html;
}

std::string group_plot(const ExperimentResult& result, const Group& group) {
  std::list<loop::LatencyHistogram> latencies;
  std::vector<CdfCurve> curves;
  for (const CellResult* cell : group.cells) {
    auto latency = latency_of(*cell);
    if (cell->cell.is_twin || !latency) continue;
    latencies.push_back(*latency);
    curves.push_back({short_name(result, *cell), &latencies.back()});
  }
  return curves.empty() ? "" : cdf_svg_element(group.name, curves);
}

// One metric of everything: a row for each group, a column for each value that is compared.
std::string glance(const ExperimentResult& result, const std::vector<Group>& groups,
                   const MetricInfo& info) {
  std::vector<std::string> columns;
  for (const CellResult& cell : result.cells) {
    const std::string name = short_name(result, cell);
    if (!cell.cell.is_twin && std::ranges::count(columns, name) == 0) columns.push_back(name);
  }
  std::string html =
      fmt::format("<div class=\"scroll\"><table><thead><tr><th>{}</th>", escaped(info.title));
  for (const std::string& column : columns)
    html += fmt::format("<th scope=\"col\">{}</th>", escaped(column));
  html += "</tr></thead><tbody>\n";
  for (const Group& group : groups) {
    html += fmt::format("<tr><td>{}</td>", escaped(group.name));
    for (const std::string& column : columns) {
      std::string text;
      for (const CellResult* cell : group.cells) {
        if (cell->cell.is_twin || short_name(result, *cell) != column) continue;
        const std::vector<double> values = values_of(*cell, info.name);
        if (values.empty()) {
          text = "<span class=\"dim\">none</span>";
          continue;
        }
        const auto beside = compared(result, *cell, info);
        text = fmt::format("<span class=\"{}\">{}</span>",
                           beside ? class_of(beside->verdict, info.more_is_better) : "base",
                           number(median_of(values) / info.unit));
      }
      html += "<td>" + text + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string overview(const ExperimentResult& result, const std::vector<Group>& groups) {
  if (result.compare.empty() || groups.size() < 2) return "";
  std::string html = "<h2>At a glance</h2>\n";
  html +=
      "<p class=\"dim\">Medians. The first column with a value is what the others are compared "
      "with: <span class=\"good\">better</span> and <span class=\"bad\">worse</span> are "
      "differences beyond the spread of the same measured twice; grey ones are not.</p>\n"
      "<div class=\"glance\">\n";
  constexpr std::array<std::string_view, 4> kShown = {"lat_ns.mean", "lat_ns.p99", "iops",
                                                      "cpu_ns_per_io"};
  for (const std::string_view name : kShown) {
    const auto metrics = shown_metrics(result);
    const auto info = std::ranges::find(metrics, name, &MetricInfo::name);
    if (info != metrics.end()) html += glance(result, groups, *info);
  }
  return html + "</div>\n";
}

std::string failures(const ExperimentResult& result) {
  std::string rows;
  for (const CellResult& cell : result.cells) {
    for (const CellRound& round : cell.rounds) {
      if (round.failure.empty()) continue;
      rows += fmt::format(
          "<tr><td>{}</td><td>{}</td><td class=\"failed\">{}</td></tr>\n", escaped(cell.cell.name),
          round.round == 0 ? "warm-up" : std::to_string(round.round), escaped(round.failure));
    }
  }
  if (rows.empty()) return "";
  return "<h2>What failed or was set aside</h2>\n<div class=\"scroll\"><table><thead><tr><th>cell"
         "</th><th>round</th><th>why</th></tr></thead><tbody>\n" +
         rows + "</tbody></table></div>\n";
}

std::string machine(const ExperimentResult& result) {
  std::string html = "<h2>Machine</h2>\n<div class=\"scroll\"><table><tbody>\n";
  for (const auto& [name, text] : result.machine)
    html += fmt::format(
        "<tr><td>{}</td><td style=\"text-align:left;white-space:normal\">{}</td>"
        "</tr>\n",
        escaped(name), escaped(text));
  return html + "</tbody></table></div>\n";
}

std::string method(const ExperimentResult& result) {
  std::string html = fmt::format(
      "<h2>How it was measured</h2>\n<p>{} rounds after {} to warm up; each round measures every "
      "cell once, in another order (seed {}), each in a process of its own. Values are medians of "
      "the rounds with 95 % intervals from drawing the rounds anew; ratios are of the same rounds. "
      "A difference counts when its interval leaves 1 out and it is larger than that between two "
      "measurements of the same cell. The curves have all requests of all rounds.</p>\n",
      result.rounds, result.warm_up, result.seed);
  html += "<details><summary>Commands</summary><div class=\"scroll\"><table><tbody>\n";
  for (const CellResult& cell : result.cells) {
    if (cell.cell.is_twin) continue;
    std::string words = cell.cell.own_program && !cell.cell.words.empty() ? "skiff" : "";
    for (const std::string& word : cell.cell.words) words += (words.empty() ? "" : " ") + word;
    html += fmt::format("<tr><td>{}</td><td style=\"text-align:left\"><code>{}</code></td></tr>\n",
                        escaped(cell.cell.name), escaped(words));
  }
  html += "</tbody></table></div></details>\n";
  html +=
      "<details><summary>IOPS of each round, and the CPU time stolen meanwhile</summary>"
      "<div class=\"scroll\"><table><tbody>\n";
  for (const CellResult& cell : result.cells) {
    html += fmt::format("<tr><td>{}</td>", escaped(cell.cell.name));
    for (const CellRound& round : cell.rounds) {
      if (round.round == 0) continue;
      const bool measured = round.sample && round.sample->metrics.contains("iops");
      html += fmt::format("<td>{}<small>{:.1f} %</small></td>",
                          measured ? number(round.sample->metrics.at("iops")) : "failed",
                          round.steal_percent);
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div></details>\n";
}

}  // namespace

std::string html_report(const ExperimentResult& result) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      "<title>{0}</title>\n<style>{1}</style></head>\n<body>\n<h1>{0}</h1>\n"
      "<p class=\"question\">{2}</p>\n",
      escaped(result.name), kStyle, escaped(result.question));
  if (result.interrupted)
    html += "<p class=\"note\">It was interrupted: these are the results so far.</p>\n";
  const std::vector<Group> groups = groups_of(result);
  html += overview(result, groups);
  for (const Group& group : groups) {
    html += fmt::format("<h2>{}</h2>\n", escaped(group.name.empty() ? result.name : group.name));
    html += group_table(result, group) + group_plot(result, group);
  }
  return html + failures(result) + machine(result) + method(result) + "</body></html>\n";
}

}  // namespace skiff::vmm
