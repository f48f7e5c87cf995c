#include "plain_conv.h"

#include <algorithm>

#include "../base/isa.h"
#include "activation.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kOutputs = 64, kInputs = 32;  // of a block: sums of sums lose less than one long sum

// sums[o] += x[0] w[0][o] + x[1] w[1][o] + ...; a row of weights is `row` long.
HN_INLINE void add_products_body(const float* x, int64_t inputs, const float* w, int64_t row, float* sums, int64_t n) {
  for (int64_t first = 0; first < inputs; first += kInputs) {
    float part[kOutputs] = {};
    const int64_t end = std::min(inputs, first + kInputs);
    for (int64_t i = first; i < end; ++i) {
      for (int64_t o = 0; o < n; ++o) part[o] += x[i] * w[i * row + o];
    }
    for (int64_t o = 0; o < n; ++o) sums[o] += part[o];
  }
}

HN_DISPATCH(add_products, add_products_body)

class PlainConv final : public ConvPlan {
 public:
  PlainConv(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue)
      : s_(shape), epilogue_(epilogue), weight_(size_t(shape.weights())) {
    if (epilogue.bias != nullptr) bias_.assign(epilogue.bias, epilogue.bias + s_.out_channels);
    epilogue_.bias = nullptr;
    // [group][tap][in channel][out channel]: a row of outputs grows by one input at a time
    const int64_t ins = s_.in_channels / s_.groups, outs = s_.out_channels / s_.groups,
                  taps = s_.kernel_h * s_.kernel_w;
    for (int64_t g = 0; g < s_.groups; ++g) {
      for (int64_t o = 0; o < outs; ++o) {
        for (int64_t i = 0; i < ins; ++i) {
          for (int64_t t = 0; t < taps; ++t) {
            weight_[size_t(((g * taps + t) * ins + i) * outs + o)] =
                weights.values[((g * outs + o) * ins + i) * taps + t];
          }
        }
      }
    }
  }

  std::string name() const override { return "plain"; }
  Layout input() const override { return Layout::nhwc_f32; }
  Layout output() const override { return Layout::nhwc_f32; }
  size_t weight_bytes() const override { return weight_.size() * sizeof(float); }
  size_t workspace_bytes() const override { return 0; }
  int64_t tasks() const override { return s_.batch * s_.out_height(); }

  void run(const void* x, const void* residual, void* y, void*, int64_t task) const override {
    const int64_t image = task / s_.out_height(), row = task % s_.out_height(), width = s_.out_width();
    const float* in = static_cast<const float*>(x) + image * s_.height * s_.width * s_.in_channels;
    for (int64_t column = 0; column < width; ++column) {
      const int64_t at = (task * width + column) * s_.out_channels;
      float* out = static_cast<float*>(y) + at;
      std::fill(out, out + s_.out_channels, 0.0f);
      sums(in, row, column, out);
      finish(residual == nullptr ? nullptr : static_cast<const float*>(residual) + at, out);
    }
  }

 private:
  void sums(const float* in, int64_t row, int64_t column, float* out) const {
    const int64_t ins = s_.in_channels / s_.groups, outs = s_.out_channels / s_.groups,
                  taps = s_.kernel_h * s_.kernel_w;
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t h = row * s_.stride_h - s_.pad_top + t / s_.kernel_w * s_.dilation_h;
      const int64_t w = column * s_.stride_w - s_.pad_left + t % s_.kernel_w * s_.dilation_w;
      if (h < 0 || h >= s_.height || w < 0 || w >= s_.width) continue;
      const float* from = in + (h * s_.width + w) * s_.in_channels;
      for (int64_t g = 0; g < s_.groups; ++g) {
        const float* weight = weight_.data() + (g * taps + t) * ins * outs;
        for (int64_t o = 0; o < outs; o += kOutputs) {
          add_products(from + g * ins, ins, weight + o, outs, out + g * outs + o, std::min(kOutputs, outs - o));
        }
      }
    }
  }

  void finish(const float* residual, float* out) const {
    with_activation(epilogue_.activation, epilogue_.low, epilogue_.high, [&](auto f) {
      for (int64_t o = 0; o < s_.out_channels; ++o) {
        float sum = out[o] + (bias_.empty() ? 0.0f : bias_[size_t(o)]);
        if (residual != nullptr) sum += residual[o];
        out[o] = f(sum);
      }
    });
  }

  ConvShape s_;
  Epilogue epilogue_;
  std::vector<float> weight_, bias_;
};

}  // namespace

std::unique_ptr<ConvPlan> plain_conv(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue) {
  return std::make_unique<PlainConv>(shape, weights, epilogue);
}

}  // namespace hiddennet::runtime
