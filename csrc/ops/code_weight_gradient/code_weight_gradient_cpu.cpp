// code_weight_gradient_cpu.cpp: the exact weight gradient on a CPU: pack a block of pixels, multiply tiles, add up.
#include <atomic>

#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "code_pack.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kMultiplyGrain = int64_t(1) << 17;  // pairs times columns that are worth a thread, about

struct Workspace {
  Aligned<int16_t> input, gradient;
  Aligned<int64_t> sums;  // [tasks][kTileSums]
};

void raise_to(uint32_t value, std::atomic<uint32_t>* largest) {
  uint32_t before = largest->load();
  while (before < value && !largest->compare_exchange_weak(before, value)) {
  }
}

// A tile of sums: a group of vectors, eight output channels, one vertical tap.
struct Task {
  int32_t first, vectors;  // of the vectors (column vector, horizontal tap), taps fastest
  int32_t tile, ky;
};

Task task_of(const CodeBlocks& b, int64_t task) {
  const int32_t ky = int32_t(task % b.taps_y), tile = int32_t(task / b.taps_y % b.row_tiles);
  const int32_t group = int32_t(task / b.taps_y / b.row_tiles);
  const int32_t first = b.first_vector(group);
  return {first, b.first_vector(group + 1) - first, tile, ky};
}

// Pairs of products that an int32 holds whatever the codes are.
int64_t pair_limit(CodeType input, CodeType gradient) {
  const int64_t x = input == CodeType::kInt8 ? 128 : 255;  // parts of longer codes are of eight bits
  const int64_t g = gradient == CodeType::kInt8 ? 128 : 32768;
  return 0x7fffffff / (x * g) / 2;
}

class Writer {
 public:
  Writer(const CodeWeightGradientParams& p, const CodeBlocks& b, int32_t group)
      : p_(p), b_(b), group_(group), scale_(code_scale(*p.input_delta, *p.gradient_delta)) {}

  // Writes a tile. largest: [kLanes] magnitudes so far.
  void write(const Task& t, const int64_t* sums, uint32_t* largest) const {
    const int32_t taps = p_.shape.kernel_height * p_.shape.kernel_width;
    const int64_t per_filter = int64_t(b_.in_channels) * taps;
    for (int32_t r = 0; r < std::min(kTileRows, b_.rows - t.tile * kTileRows); ++r) {
      float* const filter = p_.dw + (int64_t(group_) * b_.rows + t.tile * kTileRows + r) * per_filter;
      for (int32_t v = 0; v < t.vectors; ++v) {
        const int32_t column = (t.first + v) / b_.taps_x * kLanes, kx = (t.first + v) % b_.taps_x;
        const int32_t count = std::min(kLanes, b_.columns - column);
        // (tap, channel); gathered taps are in the column
        const int32_t first = (t.ky * b_.taps_x + kx) * b_.in_channels + column;
        const int64_t* const from = sums + (r * kTileVectors + v) * kLanes;
        if (p_.channels_last || taps == 1) {
          scale_vector(from, scale_, count, filter + first, largest);
          continue;
        }
        float values[kLanes];
        scale_vector(from, scale_, count, values, largest);
        for (int32_t c = 0; c < count; ++c) {
          const int32_t tap = (first + c) / b_.in_channels, channel = (first + c) % b_.in_channels;
          filter[int64_t(channel) * taps + tap] = values[c];
        }
      }
    }
  }

 private:
  const CodeWeightGradientParams& p_;
  const CodeBlocks& b_;
  int32_t group_;
  double scale_;
};

template <class X, class G>
class GroupProduct {
 public:
  GroupProduct(const CodeWeightGradientParams& p, const CodeBlocks& b, int32_t group)
      : b_(b),
        input_(static_cast<const X*>(p.input) + int64_t(group) * b.in_channels),
        gradient_(static_cast<const G*>(p.gradient) + int64_t(group) * b.rows),
        limit_(pair_limit(p.input_type, p.gradient_type)),
        writer_(p, b, group) {}

  uint32_t run(Workspace* w) const {
    const int64_t blocks = depth_blocks(b_);
    const int passes = sizeof(X) > 1 ? 2 : 1;
    std::atomic<uint32_t> largest{0};
    for (int64_t at = 0; at < blocks; ++at) {
      for (int pass = 0; pass < passes; ++pass) {
        const Part part = passes == 1 ? Part::kWhole : (pass == 0 ? Part::kLow : Part::kHigh);
        const bool first = at == 0 && pass == 0, last = at + 1 == blocks && pass + 1 == passes;
        const DepthBlock d = depth_block(b_, at);
        pack(d, part, pass == 0, w);
        multiply(d, part == Part::kHigh ? 8 : 0, first, last, w, &largest);
      }
    }
    return largest;
  }

 private:
  void pack(const DepthBlock& d, Part part, bool gradient_too, Workspace* w) const {
    int16_t* const input = w->input.at_least(d.input_elements(b_));
    int16_t* const gradient = w->gradient.at_least(d.gradient_elements(b_));
    const int64_t inputs = b_.gathered > 1 ? gathered_units(d) : input_units(b_, d);
    const int64_t gradients = gradient_too ? gradient_units(b_, d) : 0;
    const int64_t work = (d.input_elements(b_) + d.gradient_elements(b_)) / std::max<int64_t>(inputs + gradients, 1);
    parallel_for(0, inputs + gradients, std::max<int64_t>(1, kMultiplyGrain / 4 / std::max<int64_t>(work, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t unit = begin; unit < end; ++unit) {
                     if (unit >= inputs) {
                       pack_gradient(gradient_, b_, d, unit - inputs, gradient);
                     } else if (b_.gathered > 1) {
                       gather_input(input_, part, b_, d, unit, input);
                     } else {
                       pack_input(input_, part, b_, d, unit, input);
                     }
                   }
                 });
  }

  void multiply(const DepthBlock& d, int32_t shift, bool first, bool last, Workspace* w,
                std::atomic<uint32_t>* largest) const {
    const bool kept = !(first && last);  // sums outlive this block
    int64_t* const sums = kept ? w->sums.at_least(b_.tasks() * kTileSums) : nullptr;
    const int64_t work = d.pairs(b_) * d.images * kTileRows * kTileVectors;
    parallel_for(0, b_.tasks(), std::max<int64_t>(1, kMultiplyGrain / std::max<int64_t>(work, 1)),
                 [&](int64_t begin, int64_t end) {
                   alignas(64) int64_t own[kTileSums];
                   uint32_t most[kLanes] = {};
                   for (int64_t at = begin; at < end; ++at) {
                     const Task t = task_of(b_, at);
                     int64_t* const sum = kept ? sums + at * kTileSums : own;
                     if (first) std::fill(sum, sum + kTileSums, int64_t(0));
                     tile_function(t.vectors)(tile_args(d, t, shift, w), sum);
                     if (last) writer_.write(t, sum, most);
                   }
                   raise_to(*std::max_element(most, most + kLanes), largest);
                 });
  }

  TileArgs tile_args(const DepthBlock& d, const Task& t, int32_t shift, Workspace* w) const {
    TileArgs a = {};
    a.segments = d.images;
    a.pairs = d.pairs(b_);
    a.gradient = w->gradient.at_least(0) + int64_t(t.tile) * d.images * a.pairs * 2 * kTileRows;
    for (int32_t v = 0; v < t.vectors; ++v) {
      a.input[v] = w->input.at_least(0) + d.tap_at(b_, (t.first + v) / b_.taps_x, (t.first + v) % b_.taps_x, t.ky);
    }
    a.input_stride = d.plane_elements(b_);
    a.limit = limit_;
    a.shift = shift;
    return a;
  }

  const CodeBlocks& b_;
  const X* input_;
  const G* gradient_;
  int64_t limit_;
  Writer writer_;
};

template <class X, class G>
void run_groups(const CodeWeightGradientParams& p) {
  const CodeBlocks b = code_blocks(p);
  std::atomic<uint32_t> largest{0};
  parallel_for(0, p.groups, 1, [&](int64_t begin, int64_t end) {  // one group: its blocks are shared out instead
    Workspace w;
    for (int64_t group = begin; group < end; ++group) {
      raise_to(GroupProduct<X, G>(p, b, int32_t(group)).run(&w), &largest);
    }
  });
  *p.largest = bits_float(largest);
}

template <class X>
void run_inputs(const CodeWeightGradientParams& p) {
  p.gradient_type == CodeType::kInt8 ? run_groups<X, int8_t>(p) : run_groups<X, int16_t>(p);
}

}  // namespace

void code_weight_gradient(const CodeWeightGradientParams& p) {
  const ConvShape& s = p.shape;
  const int64_t weights = int64_t(s.out_channels) * (s.in_channels / p.groups) * s.kernel_height * s.kernel_width;
  if (weights == 0 || s.batch == 0 || s.out_height == 0 || s.out_width == 0) {
    std::fill(p.dw, p.dw + weights, 0.0f);
    *p.largest = 0.0f;
    return;
  }
  switch (p.input_type) {
    case CodeType::kUint8: return run_inputs<uint8_t>(p);
    case CodeType::kInt8: return run_inputs<int8_t>(p);
    case CodeType::kInt16: return run_inputs<int16_t>(p);
    case CodeType::kInt32: return run_inputs<int32_t>(p);
  }
}

}  // namespace cpu
}  // namespace hn
