// sparse_lanes.h: which block of which image a vector's lanes stand for.
//
// A lane is a block of outputs of one image. While there are as many images as lanes, lanes are the same block of these,
// and the blocks of the same images follow one another, as they share sources; the images that are left fill vectors with
// several blocks of each.
#pragma once
#include <vector>

#include "sparse_args.h"
#include "sparse_grid.h"

namespace hn {
namespace cpu {

constexpr int32_t kFirstLevel = 38 * 1024;  // bytes of a tile that stay in the first level, beside sums and lists

struct Maps {  // channels_last images
  int32_t images, height, width, channels;
};

struct Cut {  // of a grid
  int kind;
  BlockShape block;
  int64_t groups;            // of lanes
  int32_t positions, pitch;  // of a tile; pitch is odd, as rows of powers of two share sets of the cache
  int32_t channels;          // of a tile
};

inline int64_t groups_of(int64_t blocks, int32_t images, int32_t lanes) {
  return images / lanes * blocks + (images % lanes * blocks + lanes - 1) / lanes;
}

// The kind of block that takes the fewest additions, and lays the axes out for it.
inline Cut cut_grid(const SparseLoops& loops, int32_t images, int32_t ins, double density, Grid* grid) {
  Cut best = {-1, {0, 0}, 0, 0, 0, 0};
  double least = 0.0;
  const int32_t reach = 65535 / (loops.lanes / 2) + 1;  // vectors that an offset can name
  for (int kind = 0; kind < 6; ++kind) {
    const BlockShape block = loops.blocks[kind];
    grid->y.lay_out(block.rows);
    grid->x.lay_out(block.columns);
    const int64_t groups = groups_of(grid->blocks(), images, loops.lanes);
    const int64_t positions = int64_t(grid->y.source.size()) * int64_t(grid->x.source.size());
    const double cost = double(groups) * (block.outputs() + 1.5);
    if ((positions | 1) > reach || (best.kind >= 0 && cost >= least)) continue;
    least = cost;
    best = {kind, block, groups, int32_t(positions), int32_t(positions | 1), 0};
  }
  grid->y.lay_out(best.block.rows);
  grid->x.lay_out(best.block.columns);
  const int32_t vector = loops.lanes * int32_t(sizeof(float));
  const double listed = 16.0 / (double(std::max<int64_t>(grid->taps(), 1)) * std::max(density, 1e-4));
  const double held = double(kFirstLevel) / (double(best.pitch) * vector);
  int32_t channels = int32_t(std::min(std::max(listed, held), double(reach / best.pitch)));
  if (channels > loops.lanes) channels = channels / loops.lanes * loops.lanes;
  best.channels = std::max(1, std::min(channels, ins));
  return best;
}

// The lanes of a group: where their tiles come from and where their outputs go.
class Lanes {
 public:
  Lanes(const Grid& grid, const Cut& cut, int32_t lanes) : grid_(grid), cut_(cut), lanes_(lanes) {
    from_.resize(size_t(cut.positions) * size_t(lanes));
    to_.resize(size_t(cut.block.outputs()) * size_t(lanes));
  }

  // none: zeros, as many as a map has channels.
  const float* const* sources(int64_t group, const Maps& maps, const float* base, const float* none) {
    each_lane(group, maps.images, [&](int32_t lane, int64_t image, int64_t y0, int64_t x0) {
      const float** to = from_.data() + lane;
      for (const int64_t sy : grid_.y.source) {
        const int64_t y = y0 * grid_.y.factor + sy;
        const bool row = image >= 0 && y >= 0 && y < maps.height;
        const float* const line = base + (image * maps.height + y) * maps.width * maps.channels;
        for (const int64_t sx : grid_.x.source) {
          const int64_t x = x0 * grid_.x.factor + sx;
          *to = row && x >= 0 && x < maps.width ? line + x * maps.channels : none;
          to += lanes_;
        }
      }
    });
    return from_.data();
  }

  // Floats from a source to the one of the block to the right.
  int64_t next_block(int32_t channels) const { return int64_t(grid_.x.factor) * cut_.block.columns * channels; }
  int64_t rows() const { return int64_t(grid_.y.source.size()); }

  template <class T>  // float or const float
  T* const* outputs(int64_t group, const Maps& maps, T* base, T* none) {
    each_lane(group, maps.images, [&](int32_t lane, int64_t image, int64_t y0, int64_t x0) {
      int64_t at = lane;
      for (int64_t i = y0; i < y0 + cut_.block.rows; ++i) {
        for (int64_t j = x0; j < x0 + cut_.block.columns; ++j, at += lanes_) {
          const bool inside = image >= 0 && i < grid_.y.count && j < grid_.x.count;
          const int64_t y = grid_.y.first + grid_.y.step * i, x = grid_.x.first + grid_.x.step * j;
          T* const there = base + ((image * maps.height + y) * maps.width + x) * maps.channels;
          to_[size_t(at)] = const_cast<float*>(inside ? there : none);
        }
      }
    });
    return to_.data();
  }

 private:
  template <class F>
  void each_lane(int64_t group, int32_t images, const F& f) const {
    const int64_t blocks = grid_.blocks(), across = grid_.x.blocks(), whole = images / lanes_ * blocks;
    const int32_t left = images % lanes_;
    for (int32_t lane = 0; lane < lanes_; ++lane) {
      const int64_t v = (group - whole) * lanes_ + lane;  // among the images that are left
      const int64_t block = group < whole ? group % blocks : v / left;
      const int64_t image = group < whole ? group / blocks * lanes_ + lane : images - left + v % left;
      f(lane, block < blocks ? image : -1, block / across * cut_.block.rows, block % across * cut_.block.columns);
    }
  }

  const Grid& grid_;
  const Cut& cut_;
  int32_t lanes_;
  std::vector<const float*> from_;
  std::vector<float*> to_;
};

}  // namespace cpu
}  // namespace hn
