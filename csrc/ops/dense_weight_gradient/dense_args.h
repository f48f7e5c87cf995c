// dense_args.h: what the loops of dense_weight_gradient take. They are compiled once an instruction set (dense_loops.h).
#pragma once
#include <cstdint>

namespace hn {
namespace cpu {

constexpr int64_t kSegment = 128;

struct Run {  // steps that follow one another in both panels
  int64_t x, dy, length;
};

struct DenseTileArgs {
  const float* x;   // [steps][columns of a tile]
  const float* dy;  // [steps][rows of a tile]
  const Run* runs;
  int64_t n_runs;
  float* sums;  // [rows][columns]
  bool fresh;   // written, not added to
};

struct CopyArgs {  // to[panel][unit][width] of images' channels; a panel's width of channels, zeros behind the last
  const float* from;
  int64_t image;  // floats from an image to the next one
  int32_t images, channels, width;
  float* to;
  int64_t panel;  // floats from a panel to the next one
};

struct DenseLoops {
  int32_t columns;   // of a tile
  int32_t max_rows;  // of a tile
  void (*tile)(int32_t rows, const DenseTileArgs&);
  void (*copy)(const CopyArgs&);
};

}  // namespace cpu
}  // namespace hn
