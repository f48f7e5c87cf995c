// sparse_images.cpp: blocks of neighbouring outputs of the images in a register's lanes.
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

// The fewest additions, counting an entry's own work as two.
Block choose_block(const ConvShape& s, int32_t most) {
  Block best = {1, 1};
  double least = 0.0;
  for (const int32_t rows : {1, 2, 3, 4}) {
    for (const int32_t columns : {1, 2, 4, 7}) {
      if (rows > s.out_height() || columns > s.out_width() || rows * columns > most) continue;
      const double blocks =
          double((s.out_height() + rows - 1) / rows) * double((s.out_width() + columns - 1) / columns);
      const double cost = blocks * (rows * columns + 2.0);
      if (least != 0.0 && cost >= least) continue;
      least = cost;
      best = {rows, columns};
    }
  }
  return best;
}

class SparseImagesPlan : public ConvPlan {
 public:
  SparseImagesPlan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue,
                   const SparseLoops& loops, Block block, int32_t channels)
      : s_(shape),
        finish_(shape, weights.magnitude, epilogue),
        loops_(loops),
        block_(block),
        y_(block.rows, shape.kernel_h, shape.stride_h, shape.dilation_h),
        x_(block.columns, shape.kernel_w, shape.stride_w, shape.dilation_w),
        parts_(int32_t(kImages) / loops.lanes),
        channels_(channels),
        lists_(shape, weights, places(), slots(), loops.lanes / 2, channels) {
    block_rows_ = (s_.out_height() + block.rows - 1) / block.rows;
    // The last block reaches back where it must: one task then has it and the block before.
    bands_ = block_rows_ - (s_.out_height() % block.rows != 0 ? 1 : 0);
  }

  std::string name() const override { return sparse_name("images", lists_.values() == nullptr, loops_); }
  Layout input() const override { return Layout::lanes_f32; }
  Layout output() const override { return Layout::lanes_f32; }
  size_t weight_bytes() const override { return lists_.bytes() + finish_.bytes(); }
  size_t workspace_bytes() const override {
    return size_t(channels_ * slots() + s_.out_channels / s_.groups * block_.rows * block_.columns) * lane_bytes() +
           size_t(slots()) * 4 * sizeof(int32_t) + 64;
  }
  int64_t tasks() const override { return s_.batch / kImages * bands_; }

  void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const override {
    const int64_t band = task % bands_, group = task / bands_;
    const int64_t in = group * s_.in_channels * s_.height * s_.width * kImages;
    const int64_t out = group * s_.out_channels * s_.out_height() * s_.out_width() * kImages;
    const int64_t end = band + 1 == bands_ ? block_rows_ : band + 1;
    const int64_t columns = (s_.out_width() + block_.columns - 1) / block_.columns, first = band * columns;
    Sources here = sources(workspace, 0), next = sources(workspace, 1);
    find_sources(first, &here);
    for (int64_t i = first; i < end * columns; ++i) {
      const bool more = i + 1 < end * columns;
      if (more) find_sources(i + 1, &next);
      // All parts of a block: they share lines of cache.
      for (int32_t part = 0; part < parts_; ++part) {
        const int64_t lane = int64_t(part) * loops_.lanes;
        run_block(static_cast<const float*>(x) + in + lane,
                  residual == nullptr ? nullptr : static_cast<const float*>(residual) + out + lane,
                  static_cast<float*>(y) + out + lane, here,
                  part + 1 < parts_ ? nullptr
                  : more            ? &next
                                    : nullptr,
                  workspace);
      }
      std::swap(here, next);
    }
  }

  int32_t slots() const { return y_.slots() * x_.slots(); }

 private:
  size_t lane_bytes() const { return size_t(loops_.lanes) * sizeof(float); }

  std::vector<int32_t> places() const {
    std::vector<int32_t> at;
    for (const int32_t y : y_.place) {
      for (const int32_t x : x_.place) at.push_back(y * x_.slots() + x);
    }
    return at;
  }

  // Of a block's sources: where they are, those of the padding behind the others.
  struct Sources {
    int64_t at;  // of the block's first output
    int32_t there;
    int32_t *from, *to;
  };

  Sources sources(void* workspace, int32_t which) const {
    float* const behind = static_cast<float*>(workspace) + tile_at() + int64_t(channels_) * slots() * loops_.lanes;
    int32_t* const from = reinterpret_cast<int32_t*>(behind) + int64_t(which) * 2 * slots();
    return {0, 0, from, from + slots()};
  }

  void find_sources(int64_t block, Sources* found) const {
    const int64_t columns = (s_.out_width() + block_.columns - 1) / block_.columns;
    const int64_t row = std::min(block / columns * block_.rows, s_.out_height() - block_.rows);
    const int64_t column = std::min(block % columns * block_.columns, s_.out_width() - block_.columns);
    const int64_t top = row * s_.stride_h - s_.pad_top, left = column * s_.stride_w - s_.pad_left;
    int32_t there = 0, gone = slots();
    for (int32_t i = 0; i < y_.slots(); ++i) {
      const int64_t y = top + y_.source[size_t(i)];
      for (int32_t j = 0; j < x_.slots(); ++j) {
        const int64_t x = left + x_.source[size_t(j)];
        const int32_t slot = (i * x_.slots() + j) * loops_.lanes;
        if (y < 0 || y >= s_.height || x < 0 || x >= s_.width) {
          found->to[--gone] = slot;
        } else {
          found->from[there] = int32_t((y * s_.width + x) * kImages);
          found->to[there++] = slot;
        }
      }
    }
    found->there = there;
    found->at = (row * s_.out_width() + column) * kImages;
  }

  int64_t tile_at() const { return s_.out_channels / s_.groups * block_.rows * block_.columns * loops_.lanes; }

  // next: of the block after this one, or null.
  void run_block(const float* x, const float* residual, float* y, const Sources& here, const Sources* next,
                 void* workspace) const {
    const int64_t pixels = s_.height * s_.width * kImages, out_pixels = s_.out_height() * s_.out_width() * kImages;
    const int32_t outs = int32_t(s_.out_channels / s_.groups), ins = int32_t(s_.in_channels / s_.groups);
    float* const sums = static_cast<float*>(workspace);
    float* const tile = sums + tile_at();
    for (int64_t g = 0; g < s_.groups; ++g) {
      for (int32_t chunk = 0; chunk < lists_.chunks(); ++chunk) {
        const int64_t first = g * ins + lists_.first_channel(chunk), out = g * outs;
        const int32_t channels = lists_.channels_of(chunk);
        loops_.copy({x + first * pixels, pixels, tile, channels, slots(), here.there, here.from, here.to});
        BlockArgs a = {};
        a.tile = tile;
        a.row = int64_t(x_.slots()) * loops_.lanes;
        a.heads = lists_.heads(chunk) + out;
        a.offsets = lists_.offsets();
        a.values = lists_.values();
        a.outs = outs;
        a.sums = sums;
        a.first = chunk == 0;
        a.last = chunk + 1 == lists_.chunks();
        a.scale = finish_.scale.data() + out;
        a.bias = finish_.bias.data() + out;
        a.residual = residual == nullptr ? nullptr : residual + out * out_pixels + here.at;
        a.y = y + out * out_pixels + here.at;
        a.out_stride = out_pixels;
        a.out_row = s_.out_width() * kImages;
        a.out_column = kImages;
        a.activation = finish_.activation;
        a.low = finish_.low;
        a.high = finish_.high;
        const bool same_block = !a.last || g + 1 < s_.groups;
        if (same_block || next != nullptr) {
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
  Block block_;
  GridAxis y_, x_;
  int32_t parts_, channels_;
  SparseLists lists_;
  int64_t block_rows_, bands_;
};

}  // namespace

namespace {

struct Made {
  Block block;
  int32_t channels = 0;  // of a chunk; 0: there is no such plan
};

Made choose(const ConvShape& s, const SparseLoops& loops) {
  if (s.batch % kImages != 0 || s.height * s.width * kImages >= (int64_t(1) << 31)) return {};
  const Block block = choose_block(s, loops.most_sums);
  const int64_t slots = int64_t(GridAxis(block.rows, s.kernel_h, s.stride_h, s.dilation_h).slots()) *
                        GridAxis(block.columns, s.kernel_w, s.stride_w, s.dilation_w).slots();
  return {block, chunk_channels(s, loops, slots)};
}

}  // namespace

std::unique_ptr<ConvPlan> sparse_images_plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue) {
  const SparseLoops& loops = sparse_loops();
  const Made made = choose(s, loops);
  if (made.channels == 0) return nullptr;
  return std::make_unique<SparseImagesPlan>(s, weights, epilogue, loops, made.block, made.channels);
}

std::optional<ConvIdea> sparse_images_idea(const ConvOutline& outline) {
  const SparseLoops& loops = sparse_loops();
  const ConvShape& s = outline.shape;
  const Made made = choose(s, loops);
  if (made.channels == 0) return std::nullopt;
  const double across = double((s.out_height() + made.block.rows - 1) / made.block.rows) *
                        double((s.out_width() + made.block.columns - 1) / made.block.columns);
  const SparseCosts costs(outline, made.block.rows * made.block.columns, across * double(s.batch / loops.lanes),
                          made.channels);
  constexpr double kBytesASecond = 9e9;  // maps of many images come from the third level of cache
  return ConvIdea{sparse_name("images", outline.is_signed, loops), Layout::lanes_f32, Layout::lanes_f32,
                  costs.entries + costs.sums + 4.0 * outline.numbers() / kBytesASecond};
}

}  // namespace hiddennet::runtime
