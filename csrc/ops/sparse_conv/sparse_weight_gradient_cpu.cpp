// sparse_weight_gradient_cpu.cpp: the weight gradient where a weight is not zero: the forward's lists and tiles, with the
// gradients of a block of outputs in registers.
#include "sparse_lanes.h"
#include "sparse_lists.h"

namespace hn {
namespace cpu {
namespace {

// dw in the order of the rows, from the order of the lists.
void unlist(const WeightRows& w, const Lists& lists, const float* listed, float* dw) {
  parallel_for(0, w.outs, 16, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int32_t chunk = 0; chunk < lists.chunks(); ++chunk) {
        const float* from = listed + lists.heads(chunk)[o].start;
        for (const int64_t tap : lists.taps_at()) {
          const int64_t at = o * w.row() + tap + lists.first_channel(chunk);
          for (int64_t i = at; i < at + lists.channels_of(chunk); ++i) {
            const bool kept = w.values[i] != 0.0f;
            dw[i] = kept ? *from : 0.0f;
            from += kept;
          }
        }
      }
    }
  });
}

// The memory of the rows to the weight's own.
void to_layout(const SparseLoops& loops, const WeightRows& w, const float* rows, float* dw) {
  parallel_for(0, w.outs, 16, [&](int64_t begin, int64_t end) {
    std::vector<float*> channels(size_t(w.ins));
    for (int64_t o = begin; o < end; ++o) {
      for (int32_t c = 0; c < w.ins; ++c) channels[size_t(c)] = dw + o * w.row() + int64_t(c) * w.taps;
      loops.turn({rows + o * w.row(), w.ins, w.taps, w.ins, channels.data()});
    }
  });
}

// Groups are shared out in slices, as many on any number of threads; a slice has sums of its own.
constexpr int64_t kSlices = 16, kSliceFloats = int64_t(1) << 25;

struct Slices {
  int64_t count, room;
  float* sums;
};

void run_slice(const SparseLoops& loops, const SparseWeightGradientParams& p, const Grid& grid, const Cut& cut,
               const Lists& lists, int64_t first, int64_t last, float* listed) {
  const ConvShape& s = p.shape;
  const Maps from = {s.batch, s.in_height, s.in_width, s.in_channels};
  const Maps to = {s.batch, s.out_height, s.out_width, s.out_channels};
  const std::vector<float> none(size_t(std::max(s.in_channels, s.out_channels)), 0.0f);
  const int32_t block = cut.block.outputs();
  Lanes lanes(grid, cut, loops.lanes);
  Aligned<float> tile, gradients;
  float* const x = tile.at_least(int64_t(cut.channels) * cut.pitch * loops.lanes);
  float* const dy = gradients.at_least(int64_t(s.out_channels) * block * loops.lanes);
  const int64_t row = int64_t(grid.x.source.size()) * loops.lanes;
  for (int64_t group = first; group < last; ++group) {
    const float* const* const outputs = lanes.outputs(group, to, p.dy, none.data());
    loops.pack({outputs, block, block, s.out_channels, 0, dy, 0});
    const float* const* const sources = lanes.sources(group, from, p.x, none.data());
    for (int32_t chunk = 0; chunk < lists.chunks(); ++chunk) {
      const int32_t channel = lists.first_channel(chunk), channels = lists.channels_of(chunk);
      const int64_t ahead = chunk + 1 < lists.chunks() ? channels : lanes.next_block(s.in_channels) - channel;
      loops.pack({sources, cut.positions, cut.pitch, channels, channel, x, ahead});
      loops.dot(cut.kind, {x, row, lists.heads(chunk), lists.offsets(), s.out_channels, group == first, dy, listed});
    }
  }
}

// Adds the slices' sums up, in order, into the first one's.
void add_slices(const WeightRows& w, const Lists& lists, const Slices& slices) {
  parallel_for(0, lists.chunks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const ListHead* const heads = lists.heads(int32_t(chunk));
      for (int64_t slice = 1; slice < slices.count; ++slice) {
        for (int32_t o = 0; o < w.outs; ++o) {
          float* const to = slices.sums + heads[o].start;
          const float* const from = to + slice * slices.room;
          for (int32_t e = 0; e < heads[o].first; ++e) to[e] += from[e];
        }
      }
    }
  });
}

}  // namespace

void sparse_weight_gradient(const SparseWeightGradientParams& p) {
  const ConvShape& s = p.shape;
  const SparseLoops& loops = sparse_loops();
  WeightRows w;
  filter_rows(p.weight, s, loops, &w);
  Grid grid = forward_grid(s);
  const bool nothing = s.batch == 0 || s.out_height == 0 || s.out_width == 0 || grid.taps() == 0;
  if (nothing || grid.taps() < w.taps) std::fill(p.dw, p.dw + w.count(), 0.0f);
  if (nothing || w.count() == 0) return;
  const Cut cut = cut_grid(loops, s.batch, w.ins, look_at(w).density, &grid);
  Lists lists(w, grid, s.kernel_width, cut.pitch, cut.channels);
  lists.build(loops, ListKind::kPlaces, 0.0f);
  Aligned<float> rows, sums;
  const int64_t room = lists.room();
  const int64_t count =
      std::clamp<int64_t>(std::min(kSlices, kSliceFloats / std::max<int64_t>(room, 1)), 1, cut.groups);
  const Slices slices = {count, room, sums.at_least(count * room)};
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = cut.groups * i / count, last = cut.groups * (i + 1) / count;
      run_slice(loops, p, grid, cut, lists, first, last, slices.sums + i * room);
    }
  });
  add_slices(w, lists, slices);
  const bool as_rows = p.weight.channels_last || w.taps == 1 || w.ins == 1;
  float* const dw = as_rows ? p.dw : rows.at_least(w.count());
  if (!as_rows && grid.taps() < w.taps) std::fill(dw, dw + w.count(), 0.0f);
  unlist(w, lists, slices.sums, dw);
  if (!as_rows) to_layout(loops, w, dw, p.dw);
  list_memory().trim(w.count());
}

}  // namespace cpu
}  // namespace hn
