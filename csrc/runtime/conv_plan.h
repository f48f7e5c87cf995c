// One way of computing one convolution of a network that is only run: the contract between the executor, which knows
// the graph, and the kernels, which know the machine. A linear layer is a convolution of 1 x 1 pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hiddennet::runtime {

// How an activation of shape [batch, channels, height, width] lies in memory. The executor converts where two
// neighbours disagree (layout.h) and keeps one layout through a network where it can.
enum class Layout {
  nhwc_f32,   // [batch][height][width][channels]
  nhwc_bf16,  // the same in bfloat16
  nchw_f32,   // [batch][channels][height][width]: lanes of a register are neighbouring pixels
  lanes_f32,  // [batch / 16][channels][height][width][16]: lanes are images; only where 16 divides the batch
  parts_f32,  // [batch][channels][height / rows][width / columns][rows * columns]: lanes are the PartGrid of the map
};

// A map cut into equal parts, as many as a register has floats: part r, c is lane r * columns + c.
struct PartGrid {
  int32_t rows, columns;

  bool divides(int64_t height, int64_t width) const { return height % rows == 0 && width % columns == 0; }
};

// Of the machine, held to HIDDENNET_ISA.
PartGrid part_grid();

enum class Activation { none, relu, clamp, leaky_relu, silu, hard_swish, hard_sigmoid, sigmoid, gelu, tanh };

struct ConvShape {
  int64_t batch, in_channels, height, width, out_channels;
  int64_t kernel_h, kernel_w, stride_h, stride_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int64_t dilation_h, dilation_w, groups;

  int64_t out_height() const {
    return (height + pad_top + pad_bottom - dilation_h * (kernel_h - 1) - 1) / stride_h + 1;
  }
  int64_t out_width() const { return (width + pad_left + pad_right - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }
  int64_t weights() const { return out_channels * (in_channels / groups) * kernel_h * kernel_w; }
};

// The weights as they were decoded; a plan copies what it needs into its own form.
struct ConvWeights {
  const float* values;     // OIHW, 0 where the mask hides
  const float* magnitude;  // [out_channels] where every value of an output channel is 0 or +-magnitude; else null
};

// What follows the product, in this order: + bias, + residual, activation.
struct Epilogue {
  const float* bias;  // [out_channels] or null; copied by the plan
  bool residual;      // a second input of the output's shape and layout is added
  Activation activation;
  float low, high;  // the bounds of clamp; low is the slope of leaky_relu
};

class ConvPlan {
 public:
  virtual ~ConvPlan() = default;
  virtual std::string name() const = 0;        // "sparse avx512", "tiles amx", ...
  virtual Layout input() const = 0;            // where a layout's buffer ends, up to 64 bytes may be read but not used
  virtual Layout output() const = 0;           // of the residual, too
  virtual size_t weight_bytes() const = 0;     // what stays in memory for the weights
  virtual size_t workspace_bytes() const = 0;  // of one task, 64-byte aligned, not initialised
  virtual int64_t tasks() const = 0;           // pieces that may run at once, each on a thread
  virtual void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const = 0;
};

// A plan that could be made, by what decides how long it takes. seconds: of one core, as machines that were measured would
// take them, so that a network's first call need not measure.
struct ConvIdea {
  std::string name;
  Layout input, output;
  double seconds;
};

// What is known of a convolution before its weights are made.
struct ConvOutline {
  ConvShape shape;
  int64_t kept;    // weights
  bool is_signed;  // magnitudes of output channels, as ConvWeights has them
  bool residual;

  double additions() const {  // of single numbers
    return double(shape.batch * shape.out_height() * shape.out_width()) * double(kept);
  }
  double numbers() const {  // read and written
    const double out = double(shape.batch * shape.out_channels * shape.out_height() * shape.out_width());
    return double(shape.batch * shape.in_channels * shape.height * shape.width) + (residual ? 2.0 : 1.0) * out;
  }
};

// Every plan that this machine, held to HIDDENNET_ISA, can run for this convolution, a plain one always among them.
// bf16: also plans that round activations and weights to bfloat16 (float32 accumulation). only: the name of the one that
// is wanted, as measured before; the others need not be made.
std::vector<std::unique_ptr<ConvPlan>> conv_plans(const ConvShape& shape, const ConvWeights& weights,
                                                  const Epilogue& epilogue, bool bf16, const std::string& only = {});

// The same, not made.
std::vector<ConvIdea> conv_ideas(const ConvOutline& outline, bool bf16);

}  // namespace hiddennet::runtime
