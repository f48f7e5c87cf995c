// test_runtime_conv.cpp: every fast plan of the runtime, in every instruction set, against sums in double; what is not
// to be read is NaN, what is not to be written is looked at afterwards.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "base/amx.h"
#include "base/dtype.h"
#include "check.h"
#include "isa_paths.h"
#include "runtime/conv/epilogue.h"
#include "runtime/conv/plans.h"

namespace hn {
namespace test {
namespace {

namespace rt = hiddennet::runtime;
using rt::Activation;
using rt::ConvShape;
using rt::Layout;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A tensor's memory in a layout: 64 bytes behind it may be read, and are NaN.
class Buffer {
 public:
  Buffer(Layout layout, int64_t batch, int64_t channels, int64_t height, int64_t width)
      : layout_(layout), channels_(channels), width_(width), pixels_(height * width), n_(batch * channels * pixels_) {
    const size_t bytes = size_t(n_) * size_t(element()) + 64;
    memory_ = std::malloc(bytes);
    std::memset(memory_, 0xff, bytes);  // NaN in both types
  }
  ~Buffer() { std::free(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() { return memory_; }
  float get(int64_t n, int64_t c, int64_t p) const {
    const int64_t i = index(n, c, p);
    return element() == 2 ? from_bfloat16(static_cast<uint16_t*>(memory_)[i]) : static_cast<float*>(memory_)[i];
  }
  void set(int64_t n, int64_t c, int64_t p, float v) {
    const int64_t i = index(n, c, p);
    if (element() == 2) {
      static_cast<uint16_t*>(memory_)[i] = bfloat16_bits(v);
    } else {
      static_cast<float*>(memory_)[i] = v;
    }
  }
  bool end_is_untouched() const {
    const auto* const end = static_cast<const uint8_t*>(memory_) + n_ * element();
    for (int i = 0; i < 64; ++i) {
      if (end[i] != 0xff) return false;
    }
    return true;
  }

 private:
  int element() const { return layout_ == Layout::nhwc_bf16 ? 2 : 4; }
  int64_t index(int64_t n, int64_t c, int64_t p) const {
    switch (layout_) {
      case Layout::nchw_f32: return (n * channels_ + c) * pixels_ + p;
      case Layout::lanes_f32: return ((n / 16 * channels_ + c) * pixels_ + p) * 16 + n % 16;
      case Layout::parts_f32: return (n * channels_ + c) * pixels_ + place(p);
      default: return (n * pixels_ + p) * channels_ + c;
    }
  }
  // Of a pixel in parts_f32.
  int64_t place(int64_t p) const {
    const rt::PartGrid grid = rt::part_grid();
    const int64_t rows = pixels_ / width_ / grid.rows, columns = width_ / grid.columns, y = p / width_, x = p % width_;
    const int64_t lane = y / rows * grid.columns + x / columns;
    return (y % rows * columns + x % columns) * grid.rows * grid.columns + lane;
  }
  Layout layout_;
  int64_t channels_, width_, pixels_, n_;
  void* memory_;
};

struct Problem {
  ConvShape shape;
  double density;
  bool is_signed, bias, residual;
  Activation activation;
};

struct Values {
  std::vector<float> x, weight, magnitude, bias, residual;
};

Values draw(const Problem& p, std::mt19937* random) {
  const ConvShape& s = p.shape;
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  Values v;
  for (int64_t i = 0; i < s.batch * s.in_channels * s.height * s.width; ++i) v.x.push_back(normal(*random));
  for (int64_t o = 0; o < s.out_channels; ++o) {
    v.magnitude.push_back(0.05f + 0.01f * float(o % 7));
    v.bias.push_back(normal(*random));
  }
  const int64_t row = s.weights() / s.out_channels;
  for (int64_t i = 0; i < s.weights(); ++i) {
    const float m = p.is_signed ? v.magnitude[size_t(i / row)] : std::fabs(normal(*random)) * 0.1f + 0.001f;
    v.weight.push_back(uniform(*random) < p.density ? (uniform(*random) < 0.5 ? m : -m) : 0.0f);
  }
  for (int64_t i = 0; i < s.batch * s.out_channels * s.out_height() * s.out_width(); ++i) {
    v.residual.push_back(normal(*random));
  }
  return v;
}

float rounded(float x) { return from_bfloat16(bfloat16_bits(x)); }

// In [batch][channel][pixel] order: the results before the activation, and the sums of absolute values that go with their
// errors.
struct Expected {
  std::vector<double> y, size;
};

Expected expect(const Problem& p, const Values& v, bool bf16) {
  const ConvShape& s = p.shape;
  const int64_t ins = s.in_channels / s.groups, outs = s.out_channels / s.groups;
  Expected e;
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t o = 0; o < s.out_channels; ++o) {
      for (int64_t pixel = 0; pixel < s.out_height() * s.out_width(); ++pixel) {
        double sum = 0.0, size = 0.0;
        for (int64_t c = 0; c < ins; ++c) {
          for (int64_t k = 0; k < s.kernel_h * s.kernel_w; ++k) {
            const int64_t y = pixel / s.out_width() * s.stride_h - s.pad_top + k / s.kernel_w * s.dilation_h;
            const int64_t x = pixel % s.out_width() * s.stride_w - s.pad_left + k % s.kernel_w * s.dilation_w;
            if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
            float from = v.x[size_t(((n * s.in_channels + o / outs * ins + c) * s.height + y) * s.width + x)];
            float weight = v.weight[size_t((o * ins + c) * s.kernel_h * s.kernel_w + k)];
            if (bf16) from = rounded(from);
            if (bf16 && !p.is_signed) weight = rounded(weight);
            sum += double(from) * weight;
            size += std::fabs(double(from) * weight);
          }
        }
        if (p.bias) {
          sum += v.bias[size_t(o)];
          size += std::fabs(v.bias[size_t(o)]);
        }
        if (p.residual) {
          float r = v.residual[size_t((n * s.out_channels + o) * s.out_height() * s.out_width() + pixel)];
          if (bf16) r = rounded(r);
          sum += r;
          size += std::fabs(r);
        }
        e.y.push_back(sum);
        e.size.push_back(size);
      }
    }
  }
  return e;
}

// The activations' own formulas, in double.
double activated(Activation a, double low, double high, double x) {
  const auto six = [](double v) { return std::min(std::max(v, 0.0), 6.0); };
  switch (a) {
    case Activation::none: return x;
    case Activation::relu: return std::max(x, 0.0);
    case Activation::clamp: return std::min(std::max(x, low), high);
    case Activation::leaky_relu: return x < 0 ? low * x : x;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::hard_swish: return x * six(x + 3) / 6;
    case Activation::hard_sigmoid: return six(x + 3) / 6;
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

void fill(Buffer* to, const std::vector<float>& from, int64_t batch, int64_t channels, int64_t pixels) {
  for (int64_t i = 0; i < batch * channels * pixels; ++i) {
    to->set(i / pixels / channels, i / pixels % channels, i % pixels, from[size_t(i)]);
  }
}

void check_plan(const rt::ConvPlan& plan, const Problem& p, const Values& v, const Expected& e, float low, float high) {
  const ConvShape& s = p.shape;
  const int64_t pixels = s.height * s.width, out_pixels = s.out_height() * s.out_width();
  const bool bf16 = plan.input() == Layout::nhwc_bf16;
  Buffer x(plan.input(), s.batch, s.in_channels, s.height, s.width),
      residual(plan.output(), s.batch, s.out_channels, s.out_height(), s.out_width()),
      y(plan.output(), s.batch, s.out_channels, s.out_height(), s.out_width());
  fill(&x, v.x, s.batch, s.in_channels, pixels);
  fill(&residual, v.residual, s.batch, s.out_channels, out_pixels);
  const size_t room = (plan.workspace_bytes() + 63) / 64 * 64;
  const std::unique_ptr<void, void (*)(void*)> workspace(room == 0 ? nullptr : std::aligned_alloc(64, room), std::free);
  for (int64_t task = plan.tasks(); task-- > 0;) {  // any order will do
    if (room > 0) std::memset(workspace.get(), 0xff, room);
    plan.run(x.data(), p.residual ? residual.data() : nullptr, y.data(), workspace.get(), task);
  }
  CHECK(y.end_is_untouched());
  for (size_t i = 0; i < e.y.size(); ++i) {
    const int64_t n = int64_t(i) / out_pixels / s.out_channels, o = int64_t(i) / out_pixels % s.out_channels;
    const double want = activated(p.activation, low, high, e.y[i]), got = y.get(n, o, int64_t(i) % out_pixels);
    // Sums of random signs: their error is far below a rounding step for each term.
    const double room_of = e.size[i] * 0x1p-24 * 6 + 1e-6 + (bf16 ? std::fabs(want) * 0x1p-8 : 0.0);
    if (!(std::fabs(got - want) <= room_of)) {
      fail(
          __FILE__, __LINE__,
          "at " + std::to_string(i) + " got " + shown(got) + ", expected " + shown(want) + " within " + shown(room_of));
    }
  }
}

std::string text(const Problem& p) {
  const ConvShape& s = p.shape;
  std::string t;
  for (const int64_t i :
       {s.batch, s.in_channels, s.height, s.width, s.out_channels, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w,
        s.pad_top, s.pad_left, s.pad_bottom, s.pad_right, s.dilation_h, s.dilation_w, s.groups}) {
    t += std::to_string(i) + " ";
  }
  return t + "density " + std::to_string(p.density) + (p.is_signed ? " signed" : " valued") +
         (p.residual ? " residual" : "") + " activation " + std::to_string(int(p.activation));
}

// Every set of instructions that the plans tell apart.
template <class F>
void in_every_path(F f) {
  in_every_isa(f);
  const bool tiles = matrix_tiles(), products = bfloat16_products();
  if (!products || !wide()) return;
  {
    const Context context("AVX512-BF16, no AMX");
    matrix_tiles() = false;
    f();
  }
  {
    const Context context("AVX-512, no BF16");
    bfloat16_products() = false;
    f();
  }
  bfloat16_products() = products;
  matrix_tiles() = tiles;
}

// Every plan there is in every set of instructions; returns how many.
int check(const Problem& p, uint32_t seed) {
  const Context context(text(p));
  std::mt19937 random(seed);
  const Values v = draw(p, &random);
  const Expected exact = expect(p, v, false), of_rounded = expect(p, v, true);
  const float low = p.activation == Activation::leaky_relu ? 0.1f : -0.5f, high = 1.5f;
  const rt::Epilogue epilogue = {p.bias ? v.bias.data() : nullptr, p.residual, p.activation, low, high};
  const rt::ConvWeights weights = {v.weight.data(), p.is_signed ? v.magnitude.data() : nullptr};
  const int64_t hidden = std::count(v.weight.begin(), v.weight.end(), 0.0f);
  int checked = 0;
  in_every_path([&] {
    const auto plans = rt::fast_conv_plans(p.shape, weights, epilogue, true, "");
    const auto ideas = rt::fast_conv_ideas({p.shape, p.shape.weights() - hidden, p.is_signed, p.residual}, true);
    CHECK_EQ(ideas.size(), plans.size());  // each is of a plan that is made
    for (const auto& plan : plans) {
      const Context named(plan->name());
      const auto found =
          std::find_if(ideas.begin(), ideas.end(), [&](const auto& i) { return i.name == plan->name(); });
      CHECK(found != ideas.end() && found->input == plan->input() && found->output == plan->output());
      CHECK(found->seconds > 0.0 && found->seconds < 1e6);
      check_plan(*plan, p, v, plan->input() == Layout::nhwc_bf16 ? of_rounded : exact, low, high);
      const auto alone = rt::fast_conv_plans(p.shape, weights, epilogue, true, plan->name());
      CHECK_EQ(alone.size(), size_t(1));
      CHECK_EQ(alone[0]->name(), plan->name());
    }
    checked += int(plans.size());
  });
  return checked;
}

int64_t one_of(std::mt19937* random, std::initializer_list<int64_t> from) {
  return from.begin()[(*random)() % from.size()];
}

Problem draw_problem(std::mt19937* r) {
  for (;;) {
    Problem p = {};
    ConvShape& s = p.shape;
    s.groups = one_of(r, {1, 1, 1, 1, 2, 3});
    s.batch = one_of(r, {1, 1, 2, 3, 16, 16, 32});
    s.in_channels = one_of(r, {1, 3, 5, 16, 17, 32, 64}) * s.groups;
    s.out_channels = one_of(r, {1, 3, 5, 16, 17, 33, 64}) * s.groups;
    if (one_of(r, {0, 0, 0, 0, 1}) == 1) s.groups = s.in_channels = s.out_channels;  // by depth
    s.height = one_of(r, {1, 2, 3, 4, 5, 7, 8, 9, 13});
    s.width = one_of(r, {1, 2, 4, 5, 7, 8, 11, 16, 19, 34});
    s.kernel_h = one_of(r, {1, 1, 2, 3, 3, 3, 5});
    s.kernel_w = one_of(r, {1, 1, 2, 3, 3, 3, 7});
    s.stride_h = one_of(r, {1, 1, 1, 2, 3});
    s.stride_w = one_of(r, {1, 1, 1, 2, 3});
    s.dilation_h = one_of(r, {1, 1, 1, 2});
    s.dilation_w = one_of(r, {1, 1, 1, 2, 3});
    s.pad_top = int64_t((*r)() % 3);
    s.pad_left = int64_t((*r)() % 3);
    s.pad_bottom = int64_t((*r)() % 3);
    s.pad_right = int64_t((*r)() % 4);
    p.density = std::vector<double>{0.0, 0.02, 0.1, 0.3, 0.5, 1.0}[(*r)() % 6];
    p.is_signed = (*r)() % 2;
    p.bias = (*r)() % 2;
    p.residual = (*r)() % 2;
    p.activation = Activation((*r)() % 10);
    if ((*r)() % 2) p.activation = Activation::relu;
    if (s.height + s.pad_top + s.pad_bottom < s.dilation_h * (s.kernel_h - 1) + 1) continue;
    if (s.width + s.pad_left + s.pad_right < s.dilation_w * (s.kernel_w - 1) + 1) continue;
    if (double(s.weights()) * double(s.batch * s.out_height() * s.out_width()) > 2e6) continue;
    return p;
  }
}

}  // namespace

TEST(every_plan_of_drawn_convolutions_equals_the_sum_in_double) {
  std::mt19937 random(7);
  int plans = 0;
  for (uint32_t i = 0; i < 150; ++i) plans += check(draw_problem(&random), i);
  CHECK(plans >= 50);
}

TEST(layers_of_real_networks) {
  const Problem problems[] = {
      {{16, 64, 8, 8, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.3, true, true, true, Activation::relu},
      {{2, 32, 32, 32, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.3, true, true, true, Activation::relu},
      {{1, 20, 16, 16, 24, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1}, 0.5, false, true, true, Activation::silu},
      {{1, 24, 16, 16, 40, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}, 0.3, true, true, true, Activation::relu},
      {{2, 12, 8, 8, 12, 7, 7, 1, 1, 6, 6, 6, 6, 2, 2, 1}, 0.5, true, true, false, Activation::none},
      {{1, 18, 16, 16, 30, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 3}, 0.3, true, true, false, Activation::relu},
      {{16, 128, 4, 4, 96, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.5, true, true, true, Activation::relu},
      {{16, 32, 8, 8, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}, 0.1, true, true, false, Activation::relu},
      {{1, 3, 40, 40, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1}, 1.0, false, true, false, Activation::relu},
      {{1, 256, 7, 7, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1}, 0.3, true, true, false, Activation::none},
      {{1, 64, 32, 32, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.3, true, true, true, Activation::relu},
      {{1, 160, 4, 4, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.3, true, true, true, Activation::relu},
      {{3, 700, 1, 1, 10, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1}, 0.5, true, true, false, Activation::none},
      {{1, 48, 14, 14, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 48}, 1.0, false, true, false, Activation::hard_swish},
      {{2, 36, 9, 9, 36, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 36}, 0.5, true, true, false, Activation::silu},
  };
  for (const Problem& p : problems) check(p, 3);
}

}  // namespace test
}  // namespace hn
