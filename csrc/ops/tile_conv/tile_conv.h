// tile_conv.h: the three directions of a 2-d convolution in bfloat16 as products of 16 x 32 matrix tiles, on a CPU.
//
//   y[n][p][o]     = sum over (q, t) of p, c:  x[n][q][c] * w[o][t][c]           q: the input position tap t of p sees
//   dx[n][q][c]    = sum over (p, t) of q, o:  dy[n][p][o] * w[o][t][c]
//   dw[o][t][c]    = sum over (p, q) of t, n:  dy[n][p][o] * x[n][q][c]
//
// The batch is blocked, 16 or 32 images to a tile, so that a position is a tile of its own: padding is never computed
// with (a 3 x 3 kernel on a 4 x 4 map skips 31 % of the products), and every stride, padding and dilation is just
// another list of positions. What is small or early in a network (3 channels, large maps) other plans do better.
//
// Products of bfloat16 are added up in float32. AMX where the machine has it, else AVX512-BF16, else plain loops. A
// result does not depend on the number of threads; on different instructions it may round differently.
#pragma once
#include <cstdint>

#include "../../base/conv_shape.h"

namespace hn {

struct TileConvParams {
  ConvShape shape;
  const uint16_t* x;       // [N, H, W, C] bfloat16; null for the input gradient
  const uint16_t* weight;  // [O, KH, KW, C] bfloat16; null for the weight gradient
  const uint16_t* dy;      // [N, OH, OW, O] bfloat16; null for the forward
  uint16_t* out;           // y or dx, written in full
  float* dw;               // [O, KH, KW, C], written in full
};

namespace cpu {
void tile_conv_forward(const TileConvParams& p);
void tile_conv_input_gradient(const TileConvParams& p);
void tile_conv_weight_gradient(const TileConvParams& p);
int tile_instructions();  // 0: plain loops, 1: AVX512-BF16, 2: AMX
}  // namespace cpu

}  // namespace hn
