// wired_levels.h: a small graph of Discovering Neural Wirings (arXiv 1906.00586), level by level, forward and backward.
//
// Nodes are maps of 8 x 8 pixels. A level is a range of nodes that receive and then send, all of earlier levels at once:
//   I[v]   = sum over edges (u, v) of weight[v][u] z[u]      (level 0: the maps it is given)
//   xhat   = (I - mean) / sqrt(variance + eps) of each map;  r = ReLU(scale[v] xhat + shift[v])
//   z[v]   = the 3x3 filter taps[v] over r, zeros around it
// and the last level receives alone: its I is the result. Statistics are each map's own, so that images never meet: a
// group of a few goes through all levels while its maps are in the second-level cache. Backwards likewise; the weight's
// gradient, to all positions that the levels read, edges or not, is a dense product afterwards.
//
// All sums have a fixed order, so that the number of threads changes nothing. The result and the gradient of the maps at
// level 0 have the same bits on every instruction set; what is summed over images has not.
#pragma once
#include <cstdint>

#include "../../base/macros.h"

namespace hn {

constexpr int32_t kMapSide = 8, kMapPixels = 64;
constexpr int32_t kImageUnit = 4;     // room is made for images in multiples of it
constexpr int32_t kNodeNumbers = 12;  // of a node's parameters' gradients: 9 taps, scale, shift, one to fill

// Rows [row, row + rows) of the weight are summed over columns [column, column + columns). Every sending node of every
// level has a slot; that of column c is from + c - column. Level 0 reads no columns. A node's parameters are those of
// its row.
struct WiredLevel {
  int32_t row, rows, column, columns, from;
};

struct WiredGraph {
  const float* weight;         // [nodes, nodes], effective: edges are what is not 0
  const float *scale, *shift;  // [nodes]
  const float* taps;           // [nodes, 9]
  const WiredLevel* levels;
  int32_t n_levels, nodes, images;
  float eps;
  bool first_norm;  // level 0 is normalised, too; else it is only rectified
  // the last level's rows are also rows of the level before, and what these received is added to the result
  bool lateral;

  const WiredLevel& last() const { return levels[n_levels - 1]; }
  int32_t slots() const {  // of sending nodes
    int32_t n = 0;
    for (int32_t j = 0; j + 1 < n_levels; ++j) n += levels[j].rows;
    return n;
  }
  int64_t image_room() const { return (int64_t(images) + kImageUnit - 1) / kImageUnit * kImageUnit; }
  int64_t map_room(int32_t of_slots) const { return image_room() * of_slots * kMapPixels; }
};

struct WiredLevelsParams {
  WiredGraph graph;
  const float* start;  // [images, nodes of level 0, 64]
  float* out;          // [images, rows of the last level, 64]
  float* sent;         // what nodes send, for the way back: map_room(slots); or null, and so the next
  float* normal;       // xhat (without a norm what was received): the same
  float* rates;        // 1 / sqrt(variance + eps): image_room() slots
};

struct WiredLevelsBackwardParams {
  WiredGraph graph;
  const float* gradient;  // as out
  const float *sent, *normal, *rates;
  float* received;  // scratch, gradients of I: map_room(slots + rows of the last level)
  float* numbers;   // scratch: image_room() * nodes * kNodeNumbers
  float* start;     // gradients: as start
  float* weight;    // [nodes, nodes], written in full; or null
  float *scale, *shift, *taps;
};

namespace cpu {
void wired_levels(const WiredLevelsParams& p);
void wired_levels_backward(const WiredLevelsBackwardParams& p);
}  // namespace cpu

}  // namespace hn
