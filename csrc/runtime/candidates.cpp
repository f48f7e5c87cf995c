#include "candidates.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "error.h"
#include "measured.h"
#include "memory.h"

namespace hiddennet::runtime {
namespace {

// The CPU's time of this thread where it works alone: other processes then do not disturb.
double now(const Pool& pool) {
  timespec time{};
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

size_t bytes_of(Layout layout, int64_t numbers) { return size_t(numbers) * element_bytes(layout) + kSlack; }

// The least of a few runs; fewer where one takes long or is no match for the best so far.
double seconds_of_plan(const ConvPlan& plan, const PreparedConv& conv, double best, Pool& pool) {
  constexpr int kRuns = 5;
  constexpr double kEnough = 0.02, kNoMatch = 2.0;
  const ConvShape& s = conv.shape();
  const int64_t out = s.batch * s.out_channels * s.out_height() * s.out_width();
  const Block x(bytes_of(plan.input(), s.batch * s.in_channels * s.height * s.width)), y(bytes_of(plan.output(), out));
  const Block residual(conv.residual() ? bytes_of(plan.output(), out) : kSlack);
  std::fill_n(x.data(), x.size(), uint8_t(0x3d));  // 0.046 as float32 and as bfloat16
  std::fill_n(residual.data(), residual.size(), uint8_t(0x3d));
  const size_t each = (plan.workspace_bytes() + kAlignment - 1) / kAlignment * kAlignment;
  const Block workspace(each * size_t(pool.threads()));
  double least = INFINITY, sum = 0.0;
  for (int i = 0; i < kRuns; ++i) {
    const double begin = now(pool);
    pool.run(plan.tasks(), [&](int64_t task, int thread) {
      plan.run(x.data(), conv.residual() ? residual.data() : nullptr, y.data(),
               workspace.data() + each * size_t(thread), task);
    });
    const double taken = now(pool) - begin;
    least = std::min(least, taken);
    sum += taken;
    if (sum > kEnough || (i > 0 && least > kNoMatch * best)) break;
  }
  return least;
}

// What a plan of one image takes between those of other layers: its weights come from farther away, and the ends of its
// lists are not foreseen (measured: 12 %).
double between_others(size_t weight_bytes, double seconds) {
  constexpr double kUnforeseen = 1.12, kBytesASecond = 1e10;
  return kUnforeseen * seconds + double(weight_bytes) / kBytesASecond;
}

}  // namespace

bool is_by_image(Layout input, Layout output, int64_t batch, int threads) {
  constexpr int64_t kEnough = 4;  // images of a thread, so that the last ones cost little
  const bool shared = batch > 1 && (batch % threads == 0 || batch >= kEnough * threads);
  return shared && input == output && (input == Layout::nchw_f32 || input == Layout::parts_f32);
}

ConvShape conv_shape(const Graph& graph, const Node& node, int64_t batch) {
  const Shape& in = graph.nodes()[size_t(node.inputs[0])].shape;
  return {batch,          in.channels,      in.height,        in.width,     node.shape.channels, node.kernel[0],
          node.kernel[1], node.stride[0],   node.stride[1],   node.pads[0], node.pads[1],        node.pads[2],
          node.pads[3],   node.dilation[0], node.dilation[1], node.groups};
}

PreparedConv::PreparedConv(const Graph& graph, const Node& node, int64_t batch, std::vector<float>& memory)
    : shape_(conv_shape(graph, node, batch)),
      weight_((graph.weight_of(node, memory), memory)),
      magnitude_(graph.magnitudes_of(node)),
      bias_(node.shift.begin(), node.shift.end()),
      residual_(node.residual),
      activation_(node.activation),
      low_(node.low),
      high_(node.high) {}

std::vector<std::unique_ptr<ConvPlan>> PreparedConv::plans(bool bf16, const std::string& only) const {
  const ConvWeights weights{weight_.data(), magnitude_.empty() ? nullptr : magnitude_.data()};
  const Epilogue epilogue{bias_.empty() ? nullptr : bias_.data(), residual_, activation_, low_, high_};
  return conv_plans(shape_, weights, epilogue, bf16, only);
}

namespace {

// What the time of a convolution's plans depends on, in words.
std::string key_of(const Graph& graph, const Node& node, int64_t batch) {
  const ConvShape s = conv_shape(graph, node, batch);
  std::ostringstream text;
  for (const int64_t number :
       {s.batch, s.in_channels, s.height, s.width, s.out_channels, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w,
        s.pad_top, s.pad_left, s.pad_bottom, s.pad_right, s.dilation_h, s.dilation_w, s.groups}) {
    text << number << ' ';
  }
  // a density within some percent
  const double density = double(graph.kept(node)) / double(std::max<int64_t>(1, s.weights()));
  text << (density > 0.0 ? int(std::lround(std::log2(density) * 8.0)) : -999) << ' '
       << int(!graph.magnitudes_of(node).empty()) << ' ' << int(!node.shift.empty()) << ' ' << int(node.residual) << ' '
       << int(node.activation);
  return text.str();
}

std::string measured_key(const Graph& graph, const Node& node, int64_t batch, bool bf16, const Pool& pool) {
  return key_of(graph, node, batch) + (bf16 ? " bf16 " : " f32 ") + std::to_string(pool.threads());
}

}  // namespace

std::vector<Option> known_options(const Graph& graph, const Node& node, int64_t batch, bool bf16, const Pool& pool) {
  return Measured::find(measured_key(graph, node, batch, bf16, pool));
}

std::vector<Option> estimated_options(const Graph& graph, const Node& node, int64_t batch, bool bf16) {
  const bool is_signed = !graph.magnitudes_of(node).empty();
  std::vector<Option> found;
  ConvOutline outline = {conv_shape(graph, node, batch), graph.kept(node), is_signed, node.residual};
  for (const ConvIdea& idea : conv_ideas(outline, bf16)) {
    double seconds = idea.seconds;
    if (is_by_image(idea.input, idea.output, batch, 1)) {
      seconds = double(batch) * between_others(size_t(outline.kept) * 2, seconds / double(batch));
    }
    found.push_back({idea.name, idea.input, idea.output, seconds});
  }
  return found;
}

std::vector<Option> measured_options(const Graph& graph, const Node& node, int64_t batch, bool bf16, Pool& pool,
                                     std::vector<float>& memory) {
  const PreparedConv conv(graph, node, batch, memory);
  std::vector<Option> found;
  double best = INFINITY;
  for (const auto& plan : conv.plans(bf16)) {
    double seconds = 0.0;
    if (is_by_image(plan->input(), plan->output(), batch, pool.threads())) {
      Pool alone(1);
      const PreparedConv one = conv.of_batch(1);
      const double images = double(batch) / double(pool.threads());
      for (const auto& each : one.plans(bf16, plan->name())) {
        seconds = images * between_others(each->weight_bytes(), seconds_of_plan(*each, one, best / images, alone));
      }
    } else {
      seconds = seconds_of_plan(*plan, conv, best, pool);
    }
    best = std::min(best, seconds);
    found.push_back({plan->name(), plan->input(), plan->output(), seconds});
  }
  if (found.empty()) fail("expected a plan for every convolution, got none");
  Measured::put(measured_key(graph, node, batch, bf16, pool), found);
  return found;
}

}  // namespace hiddennet::runtime
