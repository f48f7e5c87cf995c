// dense_plan.cpp: rows of inputs, an output's place each, are copied together (1 x 1: where they lie) and multiplied by
// strips of output channels. By depth: channels in lanes.
#include "dense_plan.h"

#include <algorithm>
#include <cstring>

#include "dense_args.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kPanelBytes = 512 << 10;

int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::string isa_name(const DenseLoops& loops) {
  return loops.lanes == 16 ? "avx512" : loops.lanes == 8 ? "avx2" : "plain";
}

std::string dense_name(const DenseLoops& loops) { return "dense " + isa_name(loops); }
std::string by_depth_name(const DenseLoops& loops) { return "dense by depth " + isa_name(loops); }

bool is_by_depth(const ConvShape& s) { return s.groups > 1 && s.groups == s.in_channels && s.groups == s.out_channels; }

class DensePlan : public ConvPlan {
 public:
  DensePlan(const ConvShape& s, const ConvWeights& w, const Epilogue& epilogue, const DenseLoops& loops)
      : s_(s),
        finish_(s, nullptr, epilogue),
        loops_(loops),
        ins_(s.in_channels / s.groups),
        outs_(s.out_channels / s.groups),
        taps_(s.kernel_h * s.kernel_w),
        strips_(over(outs_, loops.strip)),
        rows_(s.batch * s.out_height() * s.out_width()) {
    direct_ = taps_ == 1 && s.stride_h == 1 && s.stride_w == 1 && s.pad_top == 0 && s.pad_left == 0 &&
              s.out_height() == s.height && s.out_width() == s.width;
    // A multiple of a page would put all rows into the same lines of cache.
    panel_stride_ = depth() + (depth() % 1024 == 0 ? 16 : 0);
    const int64_t blocks = over(rows_, loops.rows);
    const int64_t most = std::max<int64_t>(1, kPanelBytes / (panel_stride_ * loops.rows * int64_t(sizeof(float))));
    part_rows_ = over(blocks, over(blocks, most)) * loops.rows;
    parts_ = over(rows_, part_rows_);
    strip_groups_ = parts_ >= 4 ? 1 : std::min<int64_t>(strips_, direct_ ? 4 : 2);
    weight_.assign(size_t(s.groups * strips_ * depth() * loops.strip), 0.0f);
    for (int64_t o = 0; o < s.out_channels; ++o) {
      const int64_t column = o % outs_ % loops.strip, strip = o / outs_ * strips_ + o % outs_ / loops.strip;
      for (int64_t c = 0; c < ins_; ++c) {
        for (int64_t t = 0; t < taps_; ++t) {
          weight_[size_t((strip * depth() + t * ins_ + c) * loops.strip + column)] =
              w.values[(o * ins_ + c) * taps_ + t];
        }
      }
    }
  }

  std::string name() const override { return dense_name(loops_); }
  Layout input() const override { return Layout::nhwc_f32; }
  Layout output() const override { return Layout::nhwc_f32; }
  size_t weight_bytes() const override { return weight_.size() * sizeof(float) + finish_.bytes(); }
  size_t workspace_bytes() const override { return direct_ ? 0 : size_t(panel_stride_ * part_rows_) * sizeof(float); }
  int64_t tasks() const override { return parts_ * strip_groups_; }

  void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const override {
    const int64_t first = task / strip_groups_ * part_rows_, rows = std::min(part_rows_, rows_ - first);
    const int64_t share = task % strip_groups_, end = strips_ * (share + 1) / strip_groups_;
    for (int64_t g = 0; g < s_.groups; ++g) {
      const float* from = static_cast<const float*>(x) + first * s_.in_channels + g * ins_;
      if (!direct_) {
        float* const panel = static_cast<float*>(workspace);
        for (int64_t r = 0; r < rows; ++r)
          gather(static_cast<const float*>(x) + g * ins_, first + r, panel + r * panel_stride_);
        from = panel;
      }
      for (int64_t strip = strips_ * share / strip_groups_; strip < end; ++strip) {
        const int64_t column = strip * loops_.strip, out = g * outs_ + column, at = first * s_.out_channels + out;
        ProductArgs a = {};
        a.x = from;
        a.stride = direct_ ? s_.in_channels : panel_stride_;
        a.weight = weight_.data() + (g * strips_ + strip) * depth() * loops_.strip;
        a.depth = depth();
        a.rows = int32_t(rows);
        a.columns = int32_t(std::min<int64_t>(loops_.strip, outs_ - column));
        a.scale = finish_.scale.data() + out;
        a.bias = finish_.bias.data() + out;
        a.residual = residual == nullptr ? nullptr : static_cast<const float*>(residual) + at;
        a.y = static_cast<float*>(y) + at;
        a.out_stride = s_.out_channels;
        a.activation = finish_.activation;
        a.low = finish_.low;
        a.high = finish_.high;
        loops_.multiply(a);
      }
    }
  }

 private:
  int64_t depth() const { return taps_ * ins_; }

  // The inputs of output `m`, tap by tap.
  void gather(const float* x, int64_t m, float* to) const {
    const int64_t pixels = s_.out_height() * s_.out_width(), n = m / pixels;
    const int64_t top = m % pixels / s_.out_width() * s_.stride_h - s_.pad_top;
    const int64_t left = m % pixels % s_.out_width() * s_.stride_w - s_.pad_left;
    const bool together = s_.groups == 1 && s_.dilation_w == 1;  // taps of a row are neighbours
    for (int64_t ky = 0; ky < s_.kernel_h; ++ky) {
      const int64_t iy = top + ky * s_.dilation_h;
      if (iy < 0 || iy >= s_.height) {
        std::memset(to, 0, size_t(s_.kernel_w * ins_) * sizeof(float));
        to += s_.kernel_w * ins_;
        continue;
      }
      const float* const row = x + (n * s_.height + iy) * s_.width * s_.in_channels;
      if (together && left >= 0 && left + s_.kernel_w <= s_.width) {
        std::memcpy(to, row + left * s_.in_channels, size_t(s_.kernel_w * ins_) * sizeof(float));
        to += s_.kernel_w * ins_;
        continue;
      }
      for (int64_t kx = 0; kx < s_.kernel_w; ++kx, to += ins_) {
        const int64_t ix = left + kx * s_.dilation_w;
        if (ix < 0 || ix >= s_.width) {
          std::memset(to, 0, size_t(ins_) * sizeof(float));
        } else {
          std::memcpy(to, row + ix * s_.in_channels, size_t(ins_) * sizeof(float));
        }
      }
    }
  }

  ConvShape s_;
  Finish finish_;
  const DenseLoops& loops_;
  int64_t ins_, outs_, taps_, strips_, rows_;
  bool direct_ = false;
  int64_t panel_stride_ = 0, part_rows_ = 0, parts_ = 1, strip_groups_ = 1;
  std::vector<float> weight_;
};

class DepthwisePlan : public ConvPlan {
 public:
  DepthwisePlan(const ConvShape& s, const ConvWeights& w, const Epilogue& epilogue, const DenseLoops& loops)
      : s_(s), finish_(s, nullptr, epilogue), loops_(loops), weight_(size_t(s.weights())) {
    const int64_t taps = s.kernel_h * s.kernel_w;
    for (int64_t i = 0; i < s.weights(); ++i) weight_[size_t(i % taps * s.out_channels + i / taps)] = w.values[i];
  }

  std::string name() const override { return by_depth_name(loops_); }
  Layout input() const override { return Layout::nhwc_f32; }
  Layout output() const override { return Layout::nhwc_f32; }
  size_t weight_bytes() const override { return weight_.size() * sizeof(float) + finish_.bytes(); }
  size_t workspace_bytes() const override { return 0; }
  int64_t tasks() const override { return s_.batch * s_.out_height(); }

  void run(const void* x, const void* residual, void* y, void*, int64_t task) const override {
    const int64_t n = task / s_.out_height(), oy = task % s_.out_height(), top = oy * s_.stride_h - s_.pad_top;
    const Taps rows = taps_inside(top, s_.dilation_h, s_.kernel_h, s_.height);
    for (int64_t ox = 0; ox < s_.out_width();) {
      const int64_t left = ox * s_.stride_w - s_.pad_left;
      const Taps columns = taps_inside(left, s_.dilation_w, s_.kernel_w, s_.width);
      int64_t outputs = 1;
      while (ox + outputs < s_.out_width() &&
             taps_inside(left + outputs * s_.stride_w, s_.dilation_w, s_.kernel_w, s_.width) == columns) {
        ++outputs;
      }
      const int64_t iy = top + rows.first * s_.dilation_h, ix = left + columns.first * s_.dilation_w;
      const int64_t c = s_.in_channels, at = ((n * s_.out_height() + oy) * s_.out_width() + ox) * c;
      DepthwiseArgs a = {};
      a.taps_y = int32_t(rows.count);
      a.taps_x = int32_t(columns.count);
      if (rows.count > 0 && columns.count > 0) {
        a.x = static_cast<const float*>(x) + ((n * s_.height + iy) * s_.width + ix) * c;
        a.weight = weight_.data() + (rows.first * s_.kernel_w + columns.first) * c;
      } else {
        a.taps_y = 0;
      }
      a.outputs = int32_t(outputs);
      a.channels = int32_t(c);
      a.tap_y = s_.dilation_h * s_.width * c;
      a.tap_x = s_.dilation_w * c;
      a.output = s_.stride_w * c;
      a.weight_row = s_.kernel_w * c;
      a.scale = finish_.scale.data();
      a.bias = finish_.bias.data();
      a.residual = residual == nullptr ? nullptr : static_cast<const float*>(residual) + at;
      a.y = static_cast<float*>(y) + at;
      a.activation = finish_.activation;
      a.low = finish_.low;
      a.high = finish_.high;
      loops_.by_depth(a);
      ox += outputs;
    }
  }

 private:
  struct Taps {
    int64_t first, count;
    bool operator==(const Taps& other) const { return first == other.first && count == other.count; }
  };

  static Taps taps_inside(int64_t start, int64_t dilation, int64_t taps, int64_t size) {
    const int64_t first = start >= 0 ? 0 : over(-start, dilation);
    const int64_t end = start >= size ? 0 : std::min(taps, (size - 1 - start) / dilation + 1);
    return first < end ? Taps{first, end - first} : Taps{0, 0};
  }

  ConvShape s_;
  Finish finish_;
  const DenseLoops& loops_;
  std::vector<float> weight_;
};

}  // namespace

std::unique_ptr<ConvPlan> dense_plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue) {
  if (is_by_depth(s)) {
    return std::make_unique<DepthwisePlan>(s, weights, epilogue, dense_loops());
  }
  return std::make_unique<DensePlan>(s, weights, epilogue, dense_loops());
}

std::optional<ConvIdea> dense_idea(const ConvOutline& outline) {
  const DenseLoops& loops = dense_loops();
  const ConvShape& s = outline.shape;
  const bool by_depth = is_by_depth(s);
  // Measured of one core with AVX-512: products, fewer where there are few channels or vectors are not full.
  constexpr double kProductsASecondALane = 4.2e9, kFewChannels = 0.5, kByDepth = 0.15, kBytesASecond = 8e9;
  const int64_t outs = s.out_channels / s.groups, full = (outs + loops.strip - 1) / loops.strip * loops.strip;
  const double rate = kProductsASecondALane * loops.lanes *
                      (by_depth                       ? kByDepth
                       : s.in_channels / s.groups < 8 ? kFewChannels
                                                      : double(outs) / double(full));
  const double products = double(s.weights()) * double(s.batch * s.out_height() * s.out_width());
  return ConvIdea{by_depth ? by_depth_name(loops) : dense_name(loops), Layout::nhwc_f32, Layout::nhwc_f32,
                  products / rate + 4.0 * (outline.numbers() + double(s.weights())) / kBytesASecond};
}

}  // namespace hiddennet::runtime
