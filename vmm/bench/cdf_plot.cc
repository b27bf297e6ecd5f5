// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/cdf_plot.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "loop/latency_histogram.h"

namespace skiff::vmm {
namespace {

constexpr double kWidth = 860;
constexpr double kHeight = 500;
constexpr double kLeft = 80;
constexpr double kRight = 840;
constexpr double kTop = 50;
constexpr double kBottom = 440;
constexpr double kNines = 4;  // The top is 99.99 %.

// Told apart by readers who see few colours as well; after these the lines are dashed.
constexpr std::array<std::string_view, 7> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                      "#e69f00", "#56b4e9", "#000000"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    // XML 1.0, 2.2: no control characters; what is not ASCII might be no UTF-8.
    else if (c >= 0x20 && c < 0x7f)
      out += c;
    else
      out += '?';
  }
  return out;
}

std::string time_text(double nanoseconds) {
  if (nanoseconds < 999) return fmt::format("{:g} ns", nanoseconds);
  if (nanoseconds < 999e3) return fmt::format("{:g} us", nanoseconds / 1e3);
  if (nanoseconds < 999e6) return fmt::format("{:g} ms", nanoseconds / 1e6);
  return fmt::format("{:g} s", nanoseconds / 1e9);
}

// Whole powers of ten around everything that is drawn.
struct TimeAxis {
  int first = 3;
  int last = 6;

  double x(double nanoseconds) const {
    const double at = (std::log10(std::max(1.0, nanoseconds)) - first) / (last - first);
    return kLeft + at * (kRight - kLeft);
  }
};

TimeAxis axis_of(std::span<const CdfCurve> curves) {
  double least = 1e18;
  double most = 0;
  for (const CdfCurve& curve : curves) {
    if (curve.latency->count() == 0) continue;
    least = std::min(least, static_cast<double>(curve.latency->percentile_ns(0)));
    most = std::max(most, static_cast<double>(curve.latency->percentile_ns(99.99)));
  }
  if (most == 0) return {};
  TimeAxis axis;
  axis.first = static_cast<int>(std::floor(std::log10(std::max(1.0, least))));
  axis.last = std::max(axis.first + 1, static_cast<int>(std::ceil(std::log10(most))));
  return axis;
}

double y(double nines) { return kBottom - nines / kNines * (kBottom - kTop); }

void draw_axes(std::string& svg, const TimeAxis& axis) {
  auto out = std::back_inserter(svg);
  constexpr const char* kLine =
      "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" "
      "stroke=\"{}\"/>\n";
  for (int power = axis.first; power <= axis.last; ++power) {
    const double decade = std::pow(10.0, power);
    for (int step = 1; step < 10 && (power < axis.last || step == 1); ++step) {
      const double x = axis.x(decade * step);
      fmt::format_to(out, fmt::runtime(kLine), x, kTop, x, kBottom,
                     step == 1 ? "#bbbbbb" : "#eeeeee");
    }
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                   axis.x(decade), kBottom + 20, time_text(decade));
  }
  for (const double percent : {0.0, 50.0, 90.0, 99.0, 99.9, 99.99}) {
    const double height = y(-std::log10(1 - percent / 100));
    fmt::format_to(out, fmt::runtime(kLine), kLeft, height, kRight, height, "#bbbbbb");
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:g} %</text>\n",
                   kLeft - 8, height + 4, percent);
  }
  fmt::format_to(
      out,
      "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">latency; upwards: share of "
      "requests that took no longer</text>\n",
      (kLeft + kRight) / 2, kBottom + 45);
}

void draw_curve(std::string& svg, const TimeAxis& axis, const CdfCurve& curve, size_t index) {
  auto out = std::back_inserter(svg);
  const char* dashes = index < kColours.size() ? "" : " stroke-dasharray=\"6 3\"";
  const std::string_view colour = kColours[index % kColours.size()];
  const double legend_y = kTop + 20 + 18 * static_cast<double>(index);
  fmt::format_to(out,
                 "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
                 "stroke-width=\"2\"{}/>\n",
                 kLeft + 12, legend_y - 4, kLeft + 40, legend_y - 4, colour, dashes);
  fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kLeft + 48, legend_y,
                 escaped(curve.name));
  const uint64_t count = curve.latency->count();
  if (count == 0) return;
  fmt::format_to(out, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{} points=\"",
                 colour, dashes);
  // Beyond the slowest request's own rank there is nothing to draw.
  const double last = std::min(kNines, std::log10(static_cast<double>(count)));
  constexpr int kSteps = 400;
  for (int step = 0; step <= kSteps; ++step) {
    const double nines = last * step / kSteps;
    const double percent = 100 * (1 - std::pow(10.0, -nines));
    const auto at_ns = static_cast<double>(curve.latency->percentile_ns(percent));
    fmt::format_to(out, "{:.1f},{:.1f} ", std::min(axis.x(at_ns), kRight), y(nines));
  }
  svg += "\"/>\n";
}

}  // namespace

std::string cdf_svg(const std::string& title, std::span<const CdfCurve> curves) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + cdf_svg_element(title, curves);
}

std::string cdf_svg_element(const std::string& title, std::span<const CdfCurve> curves) {
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" class=\"cdf\" font-family=\"sans-serif\" font-size=\"13\">\n"
      "<rect class=\"paper\" width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n"
      "<text x=\"{2:.1f}\" y=\"28\" font-size=\"15\">{3}</text>\n",
      kWidth, kHeight, kLeft, escaped(title));
  const TimeAxis axis = axis_of(curves);
  draw_axes(svg, axis);
  for (size_t i = 0; i < curves.size(); ++i) draw_curve(svg, axis, curves[i], i);
  return svg + "</svg>\n";
}

}  // namespace skiff::vmm
