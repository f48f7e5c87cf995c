// sparse_lanes.cpp: blocks of neighbouring outputs of the images, or of the parts of one image, in a register's lanes.
#include <algorithm>

#include "grid.h"
#include "sparse_lists.h"
#include "sparse_plan.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kImages = 16;  // of the layout

struct Block {
  int32_t rows, columns;
};

// What a register's lanes are: images, or parts of one image's map, as many rows and columns of them as PartGrid says. Each
// lane has a map of its own, and all lanes the same block of it.
struct LaneMap {
  bool parts;
  PartGrid grid;   // of parts; 1 x 1 of images
  int64_t images;  // in a group of lanes
  int64_t vector;  // floats from a pixel to the next one
  int64_t height, width, out_height, out_width;

  LaneMap(const ConvShape& s, const SparseLoops& loops, bool of_parts)
      : parts(of_parts),
        grid(of_parts ? part_grid() : PartGrid{1, 1}),
        images(of_parts ? 1 : kImages),
        vector(of_parts ? loops.lanes : kImages),
        height(s.height / grid.rows),
        width(s.width / grid.columns),
        out_height(s.out_height() / grid.rows),
        out_width(s.out_width() / grid.columns) {}

  bool fits(const ConvShape& s) const {
    if (s.batch % images != 0 || s.height * s.width * images >= (int64_t(1) << 31)) return false;
    if (!parts) return true;
    return grid.divides(s.height, s.width) && grid.divides(s.out_height(), s.out_width()) &&
           out_height * s.stride_h == height && out_width * s.stride_w == width;
  }
};

// The fewest additions, counting an entry's own work as two.
Block choose_block(const LaneMap& map, int32_t most) {
  Block best = {1, 1};
  double least = 0.0;
  for (const int32_t rows : {1, 2, 3, 4}) {
    for (const int32_t columns : {1, 2, 4, 7}) {
      if (rows > map.out_height || columns > map.out_width || rows * columns > most) continue;
      const double blocks =
          double((map.out_height + rows - 1) / rows) * double((map.out_width + columns - 1) / columns);
      const double cost = blocks * (rows * columns + 2.0);
      if (least != 0.0 && cost >= least) continue;
      least = cost;
      best = {rows, columns};
    }
  }
  return best;
}

class SparseLanesPlan : public ConvPlan {
 public:
  SparseLanesPlan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue,
                  const SparseLoops& loops, const LaneMap& map, Block block, int32_t channels)
      : s_(shape),
        finish_(shape, weights.magnitude, epilogue),
        loops_(loops),
        map_(map),
        block_(block),
        y_(block.rows, shape.kernel_h, shape.stride_h, shape.dilation_h),
        x_(block.columns, shape.kernel_w, shape.stride_w, shape.dilation_w),
        halves_(int32_t(map.vector) / loops.lanes),
        channels_(channels),
        lists_(shape, weights, places(), slots(), loops.lanes / 2, channels, edges(weights)) {
    block_rows_ = (map.out_height + block.rows - 1) / block.rows;
    // The last block reaches back where it must: one task then has it and the block before.
    bands_ = block_rows_ - (map.out_height % block.rows != 0 ? 1 : 0);
    if (map.parts) find_turns();
    const bool few = map.parts && shape.batch * bands_ < 2;
    shares_ = few ? std::min<int64_t>(2, shape.out_channels / shape.groups) : 1;
  }

  std::string name() const override {
    return sparse_name(map_.parts ? "parts" : "images", lists_.values() == nullptr, loops_);
  }
  Layout input() const override { return map_.parts ? Layout::parts_f32 : Layout::lanes_f32; }
  Layout output() const override { return input(); }
  size_t weight_bytes() const override { return lists_.bytes() + finish_.bytes() + turns_.size() * sizeof(int32_t); }
  size_t workspace_bytes() const override {
    return size_t(channels_ * slots() + s_.out_channels / s_.groups * block_.rows * block_.columns) * lane_bytes() +
           2 * size_t(slots()) * kSourceInts * sizeof(int32_t) + 64;
  }
  int64_t tasks() const override { return s_.batch / map_.images * bands_ * shares_; }

  void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const override {
    const int64_t share = task % shares_, band = task / shares_ % bands_, group = task / shares_ / bands_;
    const int64_t in = group * s_.in_channels * s_.height * s_.width * map_.images;
    const int64_t out = group * s_.out_channels * s_.out_height() * s_.out_width() * map_.images;
    const int64_t end = band + 1 == bands_ ? block_rows_ : band + 1;
    const int64_t columns = (map_.out_width + block_.columns - 1) / block_.columns, first = band * columns;
    Sources here = sources(workspace, 0), next = sources(workspace, 1);
    find_sources(first, &here);
    for (int64_t i = first; i < end * columns; ++i) {
      const bool more = i + 1 < end * columns;
      if (more) find_sources(i + 1, &next);
      // All parts of a block: they share lines of cache.
      for (int32_t half = 0; half < halves_; ++half) {
        const int64_t lane = int64_t(half) * loops_.lanes;
        run_block(static_cast<const float*>(x) + in + lane,
                  residual == nullptr ? nullptr : static_cast<const float*>(residual) + out + lane,
                  static_cast<float*>(y) + out + lane, here,
                  half + 1 < halves_ ? nullptr
                  : more             ? &next
                                     : nullptr,
                  workspace, share);
      }
      std::swap(here, next);
    }
  }

  int32_t slots() const { return y_.slots() * x_.slots(); }

 private:
  static constexpr int32_t kSourceInts = 5;  // of a slot, in Sources

  size_t lane_bytes() const { return size_t(loops_.lanes) * sizeof(float); }

  std::vector<int32_t> places() const {
    std::vector<int32_t> at;
    for (const int32_t y : y_.place) {
      for (const int32_t x : x_.place) at.push_back(y * x_.slots() + x);
    }
    return at;
  }

  // Of the taps; empty where rows left out save less than the ends of more lists cost.
  std::vector<SparseLists::Edge> edges(const ConvWeights& weights) const {
    constexpr double kFew = 9.0;                   // entries of a list
    constexpr int64_t kMany = 4;                   // rows of blocks
    constexpr int64_t kSample = int64_t(1) << 16;  // weights, to know the density
    if (map_.parts || weights.magnitude == nullptr || map_.out_height > kMany * block_.rows) return {};
    const int64_t some = std::min(kSample, s_.weights());
    const int64_t kept = some - std::count(weights.values, weights.values + some, 0.0f);
    if (double(channels_ * s_.kernel_w * kept) / double(std::max<int64_t>(1, some)) / 2.0 < kFew) return {};
    std::vector<SparseLists::Edge> found;
    for (int64_t tap = 0; tap < s_.kernel_h * s_.kernel_w; ++tap) {
      const int64_t top = tap / s_.kernel_w * s_.dilation_h - s_.pad_top;
      const bool below = top + (s_.out_height() - 1) * s_.stride_h >= s_.height;
      found.push_back(top < 0 ? SparseLists::kTop : below ? SparseLists::kBottom : SparseLists::kInside);
    }
    return found;
  }

  // Of a block's sources: where they are, those of the padding behind the others; and those that lie in other parts.
  struct Sources {
    int64_t at;  // of the block's first output
    bool at_top, at_bottom;
    int32_t there, turned;
    int32_t *from, *to, *turned_from, *turned_to, *turns;
  };

  Sources sources(void* workspace, int32_t which) const {
    float* const behind = static_cast<float*>(workspace) + tile_at() + int64_t(channels_) * slots() * loops_.lanes;
    const int64_t n = slots();
    int32_t* const from = reinterpret_cast<int32_t*>(behind) + which * kSourceInts * n;
    return {0, false, false, 0, 0, from, from + n, from + 2 * n, from + 3 * n, from + 4 * n};
  }

  // Of each step from part to part, as place_of_turn() numbers them: the lane that each lane takes from, or -1.
  void find_turns() {
    const int32_t rows = map_.grid.rows, columns = map_.grid.columns;
    for (int32_t down = 1 - rows; down < rows; ++down) {
      for (int32_t right = 1 - columns; right < columns; ++right) {
        for (int32_t lane = 0; lane < rows * columns; ++lane) {
          const int32_t row = lane / columns + down, column = lane % columns + right;
          const bool there = row >= 0 && row < rows && column >= 0 && column < columns;
          turns_.push_back(there ? row * columns + column : -1);
        }
      }
    }
  }

  // In turns_; below 0: no lane has a part there.
  int32_t place_of_turn(int64_t down, int64_t right) const {
    const int64_t rows = map_.grid.rows, columns = map_.grid.columns;
    if (down <= -rows || down >= rows || right <= -columns || right >= columns) return -1;
    return int32_t(((down + rows - 1) * (2 * columns - 1) + right + columns - 1) * loops_.lanes);
  }

  void find_sources(int64_t block, Sources* found) const {
    const int64_t columns = (map_.out_width + block_.columns - 1) / block_.columns;
    const int64_t row = std::min(block / columns * block_.rows, map_.out_height - block_.rows);
    const int64_t column = std::min(block % columns * block_.columns, map_.out_width - block_.columns);
    const int64_t top = row * s_.stride_h - s_.pad_top, left = column * s_.stride_w - s_.pad_left;
    int32_t there = 0, turned = 0, gone = slots();
    for (int32_t i = 0; i < y_.slots(); ++i) {
      const int64_t y = top + y_.source[size_t(i)], down = parts_after(y, map_.height);
      for (int32_t j = 0; j < x_.slots(); ++j) {
        const int64_t x = left + x_.source[size_t(j)], right = parts_after(x, map_.width);
        const int64_t from = ((y - down * map_.height) * map_.width + x - right * map_.width) * map_.vector;
        const int32_t slot = (i * x_.slots() + j) * loops_.lanes, turn = place_of_turn(down, right);
        if (turn < 0) {
          found->to[--gone] = slot;
        } else if (down == 0 && right == 0) {
          found->from[there] = int32_t(from);
          found->to[there++] = slot;
        } else {
          found->turned_from[turned] = int32_t(from);
          found->turned_to[turned] = slot;
          found->turns[turned++] = turn;
        }
      }
    }
    // The gap that those of other parts leave is closed.
    for (int32_t i = gone; i < slots(); ++i) found->to[there + i - gone] = found->to[i];
    found->there = there;
    found->turned = turned;
    found->at_top = row == 0;
    found->at_bottom = row + block_.rows == map_.out_height;
    found->at = (row * map_.out_width + column) * map_.vector;
  }

  // How many parts farther a place lies.
  static int64_t parts_after(int64_t at, int64_t size) { return at >= 0 ? at / size : -((size - 1 - at) / size); }

  int64_t tile_at() const { return s_.out_channels / s_.groups * block_.rows * block_.columns * loops_.lanes; }

  // next: of the block after this one, or null.
  void run_block(const float* x, const float* residual, float* y, const Sources& here, const Sources* next,
                 void* workspace, int64_t share) const {
    const int64_t pixels = s_.height * s_.width * map_.images;
    const int64_t out_pixels = s_.out_height() * s_.out_width() * map_.images;
    const int32_t outs = int32_t(s_.out_channels / s_.groups), ins = int32_t(s_.in_channels / s_.groups);
    const int32_t first_out = int32_t(outs * share / shares_), end_out = int32_t(outs * (share + 1) / shares_);
    float* const sums = static_cast<float*>(workspace);
    float* const tile = sums + tile_at();
    for (int64_t g = 0; g < s_.groups; ++g) {
      for (int32_t chunk = 0; chunk < lists_.chunks(); ++chunk) {
        const int64_t first = g * ins + lists_.first_channel(chunk), out = g * outs + first_out;
        const int32_t channels = lists_.channels_of(chunk);
        loops_.copy({x + first * pixels, pixels, tile, channels, slots(), here.there, here.from, here.to, here.turned,
                     here.turned_from, here.turned_to, here.turns, turns_.data()});
        BlockArgs a = {};
        a.tile = tile;
        a.row = int64_t(x_.slots()) * loops_.lanes;
        a.heads = lists_.heads(chunk) + out;
        a.offsets = lists_.offsets();
        a.values = lists_.values();
        a.outs = end_out - first_out;
        a.sums = sums;
        a.first = chunk == 0;
        a.last = chunk + 1 == lists_.chunks();
        a.at_top = here.at_top && lists_.has_edges();
        a.at_bottom = here.at_bottom && lists_.has_edges();
        a.scale = finish_.scale.data() + out;
        a.bias = finish_.bias.data() + out;
        a.residual = residual == nullptr ? nullptr : residual + out * out_pixels + here.at;
        a.y = y + out * out_pixels + here.at;
        a.out_stride = out_pixels;
        a.out_row = map_.out_width * map_.vector;
        a.out_column = map_.vector;
        a.activation = finish_.activation;
        a.low = finish_.low;
        a.high = finish_.high;
        const bool same_block = !a.last || g + 1 < s_.groups;
        if (!map_.parts && (same_block || next != nullptr)) {  // one image's maps are nearer than those of many
          const int64_t following = same_block ? first + channels : 0;
          a.next = x + following * pixels;
          a.next_channel = pixels;
          a.next_channels = lists_.channels_of(a.last ? 0 : chunk + 1);
          a.next_there = same_block ? here.there : next->there;
          a.next_from = same_block ? here.from : next->from;
          if (a.next_there == 0) a.next = nullptr;
        }
        loops_.add(block_.rows, block_.columns, a.values == nullptr, a);
      }
    }
  }

  ConvShape s_;
  Finish finish_;
  const SparseLoops& loops_;
  LaneMap map_;
  Block block_;
  GridAxis y_, x_;
  int32_t halves_, channels_;
  SparseLists lists_;
  int64_t block_rows_, bands_, shares_;
  std::vector<int32_t> turns_;
};

struct Made {
  LaneMap map;
  Block block;
  int32_t channels;  // of a chunk; 0: there is no such plan
};

Made choose(const ConvShape& s, const SparseLoops& loops, bool parts) {
  Made made = {LaneMap(s, loops, parts), {1, 1}, 0};
  if (!made.map.fits(s)) return made;
  made.block = choose_block(made.map, loops.most_sums);
  const int64_t slots = int64_t(GridAxis(made.block.rows, s.kernel_h, s.stride_h, s.dilation_h).slots()) *
                        GridAxis(made.block.columns, s.kernel_w, s.stride_w, s.dilation_w).slots();
  made.channels = chunk_channels(s, loops, slots);
  return made;
}

std::unique_ptr<ConvPlan> plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue, bool parts) {
  const SparseLoops& loops = sparse_loops();
  const Made made = choose(s, loops, parts);
  if (made.channels == 0) return nullptr;
  return std::make_unique<SparseLanesPlan>(s, weights, epilogue, loops, made.map, made.block, made.channels);
}

std::optional<ConvIdea> idea(const ConvOutline& outline, bool parts) {
  const SparseLoops& loops = sparse_loops();
  const ConvShape& s = outline.shape;
  const Made made = choose(s, loops, parts);
  if (made.channels == 0) return std::nullopt;
  const double across = double((made.map.out_height + made.block.rows - 1) / made.block.rows) *
                        double((made.map.out_width + made.block.columns - 1) / made.block.columns);
  const double lanes = parts ? 1.0 : double(loops.lanes);
  const SparseCosts costs(outline, made.block.rows * made.block.columns, across * double(s.batch) / lanes,
                          made.channels);
  const double bytes_a_second = parts ? 3e10 : 9e9;  // maps of many images come from the third level of cache
  // Of AVX2's longer lists more ends are foreseen between other layers than the executor reckons with.
  const double foreseen = parts && loops.lanes <= 8 ? 0.9 : 1.0;
  const Layout layout = parts ? Layout::parts_f32 : Layout::lanes_f32;
  return ConvIdea{sparse_name(parts ? "parts" : "images", outline.is_signed, loops), layout, layout,
                  foreseen * (costs.entries + costs.sums) + 4.0 * outline.numbers() / bytes_a_second};
}

}  // namespace

std::unique_ptr<ConvPlan> sparse_images_plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue) {
  return plan(s, weights, epilogue, false);
}

std::unique_ptr<ConvPlan> sparse_parts_plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue) {
  return plan(s, weights, epilogue, true);
}

std::optional<ConvIdea> sparse_images_idea(const ConvOutline& outline) { return idea(outline, false); }

std::optional<ConvIdea> sparse_parts_idea(const ConvOutline& outline) { return idea(outline, true); }

}  // namespace hiddennet::runtime
