#include "choice.h"

#include <algorithm>
#include <limits>
#include <set>

namespace hiddennet::runtime {
namespace {

// Rough speeds of one core: they only weigh against measured seconds of convolutions.
constexpr double kBytesASecond = 8e9, kConvertedBytesASecond = 3e9;
constexpr int kMostSweeps = 20;

class Chooser {
 public:
  Chooser(const Graph& graph, int64_t batch, const std::vector<std::vector<Option>>& options, Layout last, int threads)
      : graph_(graph),
        batch_(batch),
        options_(options),
        last_(last),
        threads_(threads),
        readers_(graph.nodes().size()) {
    for (size_t n = 0; n < graph.nodes().size(); ++n) {
      for (size_t i = 0; i < graph.nodes()[n].inputs.size(); ++i) {
        readers_[size_t(graph.nodes()[n].inputs[i])].push_back({n, i});
      }
    }
  }

  std::vector<int> best() {
    std::vector<int> found;
    double least = std::numeric_limits<double>::infinity();
    for (int start = -1; start < int(std::size(kLayouts)); ++start) {
      chosen_ = begin(start);
      sweep();
      const double cost = total();
      if (cost < least) {
        least = cost;
        found = chosen_;
      }
    }
    return found;
  }

 private:
  struct Reader {
    size_t node, input;
  };

  // Of all in one layout where there is such an option; -1: of the quickest option each.
  std::vector<int> begin(int layout) const {
    std::vector<int> made;
    for (const auto& options : options_) {
      const auto rank = [&](const Option& o) {
        const int off = layout < 0 ? 0 : int(o.input != kLayouts[layout]) + int(o.output != kLayouts[layout]);
        return std::make_pair(off, o.seconds);
      };
      made.push_back(int(std::min_element(options.begin(), options.end(),
                                          [&](const Option& a, const Option& b) { return rank(a) < rank(b); }) -
                         options.begin()));
    }
    return made;
  }

  const Option& option(size_t n) const { return options_[n][size_t(chosen_[n])]; }

  // Seconds of the conversions of a node's value.
  double conversions(size_t n) const {
    bool wanted[std::size(kLayouts)] = {};
    for (const Reader& r : readers_[n]) {
      wanted[size_t(read_layout(graph_.nodes()[r.node], r.input, option(r.node)))] = true;
    }
    if (int(n) == graph_.output()) wanted[size_t(last_)] = true;
    const Layout made = option(n).output;
    double sum = 0.0;
    for (const Layout layout : kLayouts) {
      if (!wanted[size_t(layout)] || layout == made) continue;
      const double bytes =
          double(batch_ * graph_.nodes()[n].shape.size()) * double(element_bytes(layout) + element_bytes(made));
      sum += bytes / kConvertedBytesASecond / double(threads_);
    }
    return sum;
  }

  double around(size_t n) const {
    double sum = option(n).seconds + conversions(n);
    for (const int i : graph_.nodes()[n].inputs) sum += conversions(size_t(i));
    return sum;
  }

  double total() const {
    double sum = 0.0;
    for (size_t n = 0; n < options_.size(); ++n) sum += option(n).seconds + conversions(n);
    return sum;
  }

  bool improve(size_t n) {
    const int before = chosen_[n];
    int best = before;
    double least = around(n);
    for (int k = 0; k < int(options_[n].size()); ++k) {
      chosen_[n] = k;
      if (const double cost = around(n); cost < least) {
        least = cost;
        best = k;
      }
    }
    chosen_[n] = best;
    return best != before;
  }

  void sweep() {
    for (int i = 0; i < kMostSweeps; ++i) {
      bool moved = false;
      for (size_t n = 0; n < options_.size(); ++n) moved |= improve(i % 2 == 0 ? n : options_.size() - 1 - n);
      if (!moved) return;
    }
  }

  const Graph& graph_;
  const int64_t batch_;
  const std::vector<std::vector<Option>>& options_;
  const Layout last_;
  const int threads_;
  std::vector<std::vector<Reader>> readers_;
  std::vector<int> chosen_;
};

}  // namespace

bool keeps_places(const Shape& from, const Shape& to) {
  return from.channels == to.channels && from.height == to.height && from.width == to.width;
}

Layout read_layout(const Node& node, size_t i, const Option& option) {
  return node.residual && i + 1 == node.inputs.size() ? option.output : option.input;
}

std::vector<Layout> layouts_of(const Graph& graph, const Node& node, int64_t batch, bool bf16) {
  if (node.op == Op::reshape && !keeps_places(graph.nodes()[size_t(node.inputs[0])].shape, node.shape)) {
    return {Layout::nchw_f32};
  }
  std::vector<Layout> found = {Layout::nhwc_f32, Layout::nchw_f32};
  if (batch % kLanesOfImages == 0) found.push_back(Layout::lanes_f32);
  const bool exact = node.op == Op::softmax || node.op == Op::log_softmax || node.op == Op::instance_norm;
  if (bf16 && !exact) found.push_back(Layout::nhwc_bf16);
  return found;
}

double seconds_of(const Graph& graph, const Node& node, int64_t batch, Layout layout, int threads) {
  if (node.op == Op::reshape || node.op == Op::constant || node.op == Op::input) return 0.0;
  int64_t numbers = node.shape.size();
  for (const int i : node.inputs) numbers += graph.nodes()[size_t(i)].shape.size();
  const bool pools = node.op == Op::max_pool || node.op == Op::average_pool;
  // Its vectors are single numbers; adaptive ones read each number once.
  const double each = pools && layout == Layout::nchw_f32 ? 4.0 * double(node.kernel[0] * node.kernel[1]) : 1.0;
  return each * double(batch * numbers) * double(element_bytes(layout)) / kBytesASecond / double(threads);
}

std::vector<int> choose(const Graph& graph, int64_t batch, const std::vector<std::vector<Option>>& options, Layout last,
                        int threads) {
  return Chooser(graph, batch, options, last, threads).best();
}

}  // namespace hiddennet::runtime
