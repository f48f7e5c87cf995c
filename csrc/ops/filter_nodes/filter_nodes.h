// filter_nodes.h: what the nodes of a wiring do between receiving and sending, in evaluation.
//
// For Discovering Neural Wirings (arXiv 1906.00586): a batch norm (as a scale and a shift), ReLU, a 3x3 convolution of
// each map of its own, with zeros around it. For image n, node c and output pixel (i, j), in this order:
//   r[a][b] = fma(scale[c], x[n][c][a][b], shift[c]), 0 where that is less, 0 outside the map
//   y[n][c][i][j] = 0, then fma(taps[c][u][v], r[i stride + u - 1][j stride + v - 1], y) for u = 0..2, for v = 0..2
// Each step is one rounding, so all backends agree to the bit. NaN stays NaN.
#pragma once
#include <cstdint>

#include "../../base/macros.h"

namespace hn {

struct FilterNodesParams {
  const float* x;              // [images, nodes, height, width]: a map is contiguous, maps lie side by side
  float* y;                    // [images, nodes, out_height, out_width], the same, apart from x
  const float *scale, *shift;  // [nodes]
  const float* taps;           // [nodes, 3, 3]
  int64_t x_image, y_image;    // elements from an image to the next one
  int32_t images, nodes, height, width, out_height, out_width, stride;
};

namespace cpu {
void filter_nodes(const FilterNodesParams& p);
}

namespace cuda {
int filter_nodes(const FilterNodesParams& p, void* stream);
}

}  // namespace hn
