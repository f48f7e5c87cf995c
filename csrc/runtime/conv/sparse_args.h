// sparse_args.h: what the loops over lists of kept weights are given.
#pragma once
#include <cstdint>

#include "../../base/float_lanes.h"
#include "epilogue.h"

namespace hiddennet::runtime {

// Of an output and a chunk of channels: added entries, then subtracted ones; of valued lists all are `first`. Of each, the
// first `top` and the last `bottom` are of taps that see only padding from the first or the last row of the map.
struct ListHead {
  uint32_t start;
  uint16_t first, second;
  uint16_t first_top, first_bottom, second_top, second_bottom;
};

struct BlockArgs {
  const float* tile;
  int64_t row;  // floats from a row of the block to the next one in the tile
  const ListHead* heads;
  const uint16_t* offsets;  // in the tile, of 8 bytes
  const float* values;      // beside the offsets; null: signed
  int32_t outs;
  float* sums;             // [outs][rows][columns][lanes]
  bool first, last;        // chunk
  bool at_top, at_bottom;  // of the map: the block has its first row, its last
  const float *scale, *bias;
  const float* residual;                    // null, or as y
  float* y;                                 // the block's first position of the first output
  int64_t out_stride, out_row, out_column;  // floats
  Activation activation;
  float low, high;
  // Of the next tile: lines that are asked for while this one is worked on.
  const float* next;
  int64_t next_channel;
  int32_t next_channels, next_there;
  const int32_t* next_from;
};

struct CopyArgs {
  const float* x;
  int64_t channel;  // floats from a channel to the next one
  float* tile;
  int32_t channels, slots, there;
  const int32_t *from,
      *to;         // floats: [there] of x; [slots - turned] of the tile, those that are zero behind the others
  int32_t turned;  // those whose lanes are other lanes of x
  const int32_t *turned_from, *turned_to, *turns;  // turns: where in `lanes` a slot's begin
  const int32_t* lanes;                            // below 0: zero
};

// A tile of neighbouring pixels in lanes: [channels][slots], as the same slot of each channel is found.
struct PixelArgs {
  const float* x;
  int64_t channel;
  float* tile;
  int32_t channels, slots;
  const int32_t* from;     // [slots]: of the first lane; or, without `chosen`, [slots][lanes], below 0: zero
  const uint32_t* chosen;  // [slots]: lanes that are there; or null
};

struct SparseLoops {
  int32_t lanes, most_sums;
  void (*copy)(const CopyArgs&);
  void (*copy_pixels)(const PixelArgs&);
  void (*add)(int32_t rows, int32_t columns, bool is_signed, const BlockArgs&);
};

const SparseLoops& sparse_loops();

}  // namespace hiddennet::runtime
