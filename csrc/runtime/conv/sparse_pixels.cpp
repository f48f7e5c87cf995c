// sparse_pixels.cpp: blocks of neighbouring outputs of one image, its pixels in the lanes.
#include <algorithm>
#include <cstring>

#include "grid.h"
#include "sparse_lists.h"
#include "sparse_plan.h"

namespace hiddennet::runtime {
namespace {

int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A block is rows x columns of vectors. wide: rows of the map, vectors of their pixels. Not wide: all are neighbours in the
// map's order.
struct PixelBlock {
  bool wide;
  int32_t rows, columns;
  int64_t slots;  // of a channel

  int32_t vectors() const { return rows * columns; }
};

// The fewest additions, counting an entry's own work as two, a source's as a tenth.
PixelBlock choose_block(const ConvShape& s, const SparseLoops& loops) {
  const int64_t vectors = over(s.out_height() * s.out_width(), loops.lanes), taps = s.kernel_h * s.kernel_w;
  PixelBlock best = {};
  double least = 0.0;
  const auto consider = [&](PixelBlock b, double blocks) {
    if (b.vectors() > loops.most_sums) return;
    const double cost = blocks * (b.vectors() + 2.0 + 0.1 * double(b.slots));
    if (least != 0.0 && cost >= least) return;
    least = cost;
    best = b;
  };
  for (const int32_t rows : {1, 2, 4}) {
    for (const int32_t columns : {1, 2, 4, 7}) {
      const int64_t n = rows * columns;
      if (n == 1 || n <= vectors) consider({false, rows, columns, taps * n}, double(over(vectors, n)));
      const bool whole = s.stride_w == 1 && s.out_width() % (loops.lanes * columns) == 0 && s.out_height() % rows == 0;
      if (!whole) continue;
      const int64_t sources = GridAxis(rows, s.kernel_h, s.stride_h, s.dilation_h).slots();
      consider({true, rows, columns, sources * s.kernel_w * columns}, double(vectors) / double(n));
    }
  }
  return best;
}

// Whether a vector's sources are neighbours, too.
bool sources_together(const ConvShape& s, const PixelBlock& block) {
  return s.stride_w == 1 && (block.wide || (s.stride_h == 1 && s.out_width() == s.width));
}

// Channels of a chunk; 0: there is no such plan.
int32_t chunk_of(const ConvShape& s, const SparseLoops& loops, const PixelBlock& block) {
  return s.height * s.width >= (int64_t(1) << 31) ? 0 : chunk_channels(s, loops, block.slots);
}

class SparsePixelsPlan : public ConvPlan {
 public:
  SparsePixelsPlan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue, const SparseLoops& loops,
                   const PixelBlock& block, int32_t channels)
      : s_(s),
        finish_(s, weights.magnitude, epilogue),
        loops_(loops),
        block_(block),
        y_(block.wide ? block.rows : 1, s.kernel_h, s.stride_h, s.dilation_h),
        channels_(channels),
        lists_(s, weights, places(), int32_t(block.slots), loops.lanes / 2, channels),
        pixels_(s.out_height() * s.out_width()),
        blocks_(over(pixels_, int64_t(block.vectors()) * loops.lanes)) {
    together_ = sources_together(s, block);
    if (together_) {
      from_.resize(size_t(blocks_ * block.slots));
      chosen_.resize(from_.size());
      for (int64_t b = 0; b < blocks_; ++b)
        find_sources(b, &from_[size_t(b * block.slots)], &chosen_[size_t(b * block.slots)]);
    }
    shares_ = s.batch * blocks_ >= 2 ? 1 : std::min<int64_t>(2, s.out_channels / s.groups);
  }

  std::string name() const override { return sparse_name("pixels", lists_.values() == nullptr, loops_); }
  Layout input() const override { return Layout::nchw_f32; }
  Layout output() const override { return Layout::nchw_f32; }
  size_t weight_bytes() const override {
    return lists_.bytes() + finish_.bytes() + from_.size() * sizeof(int32_t) + chosen_.size() * sizeof(uint32_t);
  }
  size_t workspace_bytes() const override {
    const int64_t places = together_ ? 0 : block_.slots * loops_.lanes;
    return size_t(tile_floats() + 2 * block_floats() + places) * sizeof(float);
  }
  int64_t tasks() const override { return s_.batch * blocks_ * shares_; }

  void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const override {
    const int64_t share = task % shares_, block = task / shares_ % blocks_, image = task / shares_ / blocks_;
    const int64_t ins = s_.in_channels / s_.groups, outs = s_.out_channels / s_.groups;
    const int64_t map = s_.height * s_.width, first_pixel = pixel_of(block);
    Work w;
    w.tile = static_cast<float*>(workspace);
    w.sums = w.tile + tile_floats();
    w.staged = w.sums + block_floats();
    w.from = from_.data() + (together_ ? block * block_.slots : 0);
    w.chosen = together_ ? chosen_.data() + block * block_.slots : nullptr;
    if (!together_) {
      int32_t* const places = reinterpret_cast<int32_t*>(w.staged + block_floats());
      find_places(block, places);
      w.from = places;
    }
    w.pixels = block_.wide ? int64_t(block_.vectors()) * loops_.lanes
                           : std::min(pixels_ - first_pixel, int64_t(block_.vectors()) * loops_.lanes);
    w.first_out = outs * share / shares_;
    w.outs = outs * (share + 1) / shares_ - w.first_out;
    for (int64_t g = 0; g < s_.groups; ++g) {
      const int64_t at = (image * s_.out_channels + g * outs + w.first_out) * pixels_ + first_pixel;
      run_group(w, static_cast<const float*>(x) + (image * s_.in_channels + g * ins) * map, g,
                residual == nullptr ? nullptr : static_cast<const float*>(residual) + at, static_cast<float*>(y) + at);
    }
  }

 private:
  struct Work {
    float *tile, *sums, *staged;
    const int32_t* from;
    const uint32_t* chosen;
    int64_t pixels;  // of the block
    int64_t first_out, outs;
  };

  int64_t tile_floats() const { return int64_t(channels_) * block_.slots * loops_.lanes; }
  int64_t block_floats() const { return s_.out_channels / s_.groups * block_.vectors() * loops_.lanes; }

  std::vector<int32_t> places() const {
    std::vector<int32_t> at;
    for (int32_t ky = 0; ky < s_.kernel_h; ++ky) {
      for (int32_t kx = 0; kx < s_.kernel_w; ++kx) {
        const int32_t flat = int32_t(ky * s_.kernel_w + kx) * block_.vectors();
        at.push_back(block_.wide ? int32_t(y_.place[size_t(ky)] * s_.kernel_w + kx) * block_.columns : flat);
      }
    }
    return at;
  }

  int64_t pixel_of(int64_t block) const {
    if (!block_.wide) return block * block_.vectors() * loops_.lanes;
    const int64_t columns = s_.out_width() / (int64_t(block_.columns) * loops_.lanes);
    return block / columns * block_.rows * s_.out_width() + block % columns * block_.columns * loops_.lanes;
  }

  // Of a slot: its first lane's output, and its tap's offset.
  struct Slot {
    int64_t pixel, y, x;
  };
  Slot slot_of(int64_t block, int64_t slot) const {
    const int64_t first = pixel_of(block);
    if (block_.wide) {
      const int64_t vector = slot % block_.columns, kx = slot / block_.columns % s_.kernel_w;
      const int64_t source = slot / block_.columns / s_.kernel_w;
      return {first + vector * loops_.lanes, y_.source[size_t(source)] - s_.pad_top, kx * s_.dilation_w - s_.pad_left};
    }
    const int64_t tap = slot / block_.vectors();
    return {first + slot % block_.vectors() * loops_.lanes, tap / s_.kernel_w * s_.dilation_h - s_.pad_top,
            tap % s_.kernel_w * s_.dilation_w - s_.pad_left};
  }

  // Where output `pixel` finds the source of a slot, or -1.
  int64_t place_of(int64_t pixel, const Slot& slot) const {
    if (pixel >= pixels_) return -1;
    const int64_t y = pixel / s_.out_width() * s_.stride_h + slot.y, x = pixel % s_.out_width() * s_.stride_w + slot.x;
    return y < 0 || y >= s_.height || x < 0 || x >= s_.width ? -1 : y * s_.width + x;
  }

  void find_sources(int64_t block, int32_t* from, uint32_t* chosen) const {
    for (int64_t i = 0; i < block_.slots; ++i) {
      const Slot slot = slot_of(block, i);
      from[i] = 0;
      chosen[i] = 0;
      for (int32_t l = 0; l < loops_.lanes; ++l) {
        const int64_t place = place_of(slot.pixel + l, slot);
        if (place < 0) continue;
        chosen[i] |= 1u << l;
        from[i] = int32_t(place) - l;
      }
    }
  }

  void find_places(int64_t block, int32_t* places) const {
    for (int64_t i = 0; i < block_.slots; ++i) {
      const Slot slot = slot_of(block, i);
      for (int32_t l = 0; l < loops_.lanes; ++l) *places++ = int32_t(place_of(slot.pixel + l, slot));
    }
  }

  void run_group(const Work& w, const float* x, int64_t g, const float* residual, float* y) const {
    const int64_t outs = s_.out_channels / s_.groups, first = g * outs + w.first_out, map = s_.height * s_.width;
    const int64_t room = int64_t(block_.vectors()) * loops_.lanes;
    const bool staged = w.pixels < room;  // what a vector would write behind the map goes elsewhere
    if (staged && residual != nullptr) {
      for (int64_t o = 0; o < w.outs; ++o) {
        std::memset(w.staged + o * room, 0, size_t(room) * sizeof(float));
        std::memcpy(w.staged + o * room, residual + o * pixels_, size_t(w.pixels) * sizeof(float));
      }
    }
    for (int32_t chunk = 0; chunk < lists_.chunks(); ++chunk) {
      loops_.copy_pixels({x + lists_.first_channel(chunk) * map, map, w.tile, lists_.channels_of(chunk),
                          int32_t(block_.slots), w.from, w.chosen});
      BlockArgs a = {};
      a.tile = w.tile;
      a.row = int64_t(block_.columns) * (block_.wide ? s_.kernel_w : 1) * loops_.lanes;
      a.heads = lists_.heads(chunk) + first;
      a.offsets = lists_.offsets();
      a.values = lists_.values();
      a.outs = int32_t(w.outs);
      a.sums = w.sums;
      a.first = chunk == 0;
      a.last = chunk + 1 == lists_.chunks();
      a.scale = finish_.scale.data() + first;
      a.bias = finish_.bias.data() + first;
      a.residual = staged && residual != nullptr ? w.staged : residual;
      a.y = staged ? w.staged : y;
      a.out_stride = staged ? room : pixels_;
      a.out_row = block_.wide ? s_.out_width() : int64_t(block_.columns) * loops_.lanes;
      a.out_column = loops_.lanes;
      a.activation = finish_.activation;
      a.low = finish_.low;
      a.high = finish_.high;
      loops_.add(block_.rows, block_.columns, a.values == nullptr, a);
    }
    for (int64_t o = 0; staged && o < w.outs; ++o) {
      std::memcpy(y + o * pixels_, w.staged + o * room, size_t(w.pixels) * sizeof(float));
    }
  }

  ConvShape s_;
  Finish finish_;
  const SparseLoops& loops_;
  PixelBlock block_;
  GridAxis y_;
  int32_t channels_;
  SparseLists lists_;
  int64_t pixels_, blocks_, shares_ = 1;
  bool together_ = false;
  std::vector<int32_t> from_;
  std::vector<uint32_t> chosen_;
};

}  // namespace

std::unique_ptr<ConvPlan> sparse_pixels_plan(const ConvShape& s, const ConvWeights& weights, const Epilogue& epilogue) {
  const SparseLoops& loops = sparse_loops();
  const PixelBlock block = choose_block(s, loops);
  const int32_t channels = chunk_of(s, loops, block);
  if (channels == 0) return nullptr;
  return std::make_unique<SparsePixelsPlan>(s, weights, epilogue, loops, block, channels);
}

std::optional<ConvIdea> sparse_pixels_idea(const ConvOutline& outline) {
  const SparseLoops& loops = sparse_loops();
  const ConvShape& s = outline.shape;
  const PixelBlock block = choose_block(s, loops);
  const int32_t channels = chunk_of(s, loops, block);
  if (channels == 0) return std::nullopt;
  const int64_t across = over(s.out_height() * s.out_width(), int64_t(block.vectors()) * loops.lanes);
  const double blocks = double(s.batch * across);
  const SparseCosts costs(outline, block.vectors(), blocks, channels);
  // A copied vector: of neighbours, or gathered.
  const double each = sources_together(s, block) ? 8e-10 : loops.lanes > 8 ? 1.6e-8 : 4e-9;
  const double copied = each * double(s.in_channels * block.slots);
  constexpr double kBytesASecond = 1.5e10;
  return ConvIdea{sparse_name("pixels", outline.is_signed, loops), Layout::nchw_f32, Layout::nchw_f32,
                  costs.entries + costs.sums + blocks * copied + 4.0 * outline.numbers() / kBytesASecond};
}

}  // namespace hiddennet::runtime
