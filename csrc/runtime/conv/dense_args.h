// dense_args.h: what the loops of dense products are given.
#pragma once
#include <cstdint>

#include "../../base/float_lanes.h"
#include "epilogue.h"

namespace hiddennet::runtime {

// Rows of inputs by a strip of weights.
struct ProductArgs {
  const float* x;
  int64_t stride;  // floats from a row to the next one
  const float* weight;  // [depth][strip]
  int64_t depth;
  int32_t rows, columns;
  const float *scale, *bias;
  const float* residual;  // null, or as y
  float* y;
  int64_t out_stride;  // floats from a row to the next one
  Activation activation;
  float low, high;
};

// Outputs of one row of a map by depth: neighbours that have the same taps.
struct DepthwiseArgs {
  const float* x;  // of the first output's first tap
  const float* weight;  // of its first tap: [taps][channels]
  int32_t taps_y, taps_x, outputs, channels;
  int64_t tap_y, tap_x, output;  // floats from one to the next in x
  int64_t weight_row;            // floats from a row of taps to the next one
  const float *scale, *bias;
  const float* residual;
  float* y;
  Activation activation;
  float low, high;
};

struct DenseLoops {
  int32_t lanes, rows, strip;  // rows of a block, columns of a strip
  void (*multiply)(const ProductArgs&);
  void (*by_depth)(const DepthwiseArgs&);
};

const DenseLoops& dense_loops();

}  // namespace hiddennet::runtime
