// filter_nodes.cuh: the kernel of the nodes' filter.
#pragma once
#include "../../base/launch.cuh"
#include "filter_nodes.h"

namespace hn {
namespace cuda {

constexpr int kFilterThreads = 256;

// A thread owns an output pixel. Its nine inputs are its neighbours', too: the caches serve them, and x comes from memory
// once, or, behind the sums, from the second level.
__global__ void __launch_bounds__(kFilterThreads) filter_nodes_kernel(const __grid_constant__ FilterNodesParams p) {
  const int32_t pixels = p.out_height * p.out_width;
  const int64_t at = int64_t(blockIdx.x) * kFilterThreads + threadIdx.x;
  if (at >= int64_t(p.images) * p.nodes * pixels) return;
  const int32_t pixel = int32_t(at % pixels), node = int32_t(at / pixels % p.nodes);
  const int64_t image = at / pixels / p.nodes;
  const int32_t top = pixel / p.out_width * p.stride - 1, left = pixel % p.out_width * p.stride - 1;
  const float* const x = p.x + image * p.x_image + int64_t(node) * p.height * p.width;
  const float scale = __ldg(p.scale + node), shift = __ldg(p.shift + node);
  float sum = 0.0f;
#pragma unroll
  for (int u = 0; u < 3; ++u) {
#pragma unroll
    for (int v = 0; v < 3; ++v) {
      const int32_t a = top + u, b = left + v;
      float r = 0.0f;
      if (a >= 0 && a < p.height && b >= 0 && b < p.width) {
        r = __fmaf_rn(scale, __ldg(x + int64_t(a) * p.width + b), shift);
        r = r < 0.0f ? 0.0f : r;
      }
      sum = __fmaf_rn(__ldg(p.taps + int64_t(node) * 9 + 3 * u + v), r, sum);
    }
  }
  p.y[image * p.y_image + int64_t(node) * pixels + pixel] = sum;
}

}  // namespace cuda
}  // namespace hn
