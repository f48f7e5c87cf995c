// sparse_weight_gradient_cpu.cpp: the weight gradient where a weight is not zero: the forward's lists and tiles, with the
// gradients of a block of outputs in registers.
#include "sparse_lanes.h"
#include "sparse_lists.h"

namespace hn {
namespace cpu {
namespace {

// Gradients as [group][output][block position][lane].
void pack_gradients(const SparseLoops& loops, const float* dy, const Maps& maps, const Grid& grid, const Cut& cut,
                    float* to) {
  const int32_t block = cut.block.outputs();
  const std::vector<float> none(size_t(maps.channels), 0.0f);
  parallel_for(0, cut.groups, 1, [&](int64_t begin, int64_t end) {
    Lanes lanes(grid, cut, loops.lanes);
    for (int64_t group = begin; group < end; ++group) {
      const float* const* const from = lanes.outputs(group, maps, dy, none.data());
      loops.pack({from, block, block, maps.channels, 0, to + group * maps.channels * block * loops.lanes});
    }
  });
}

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

constexpr int32_t kOutputsAtOnce = 64;  // of a task

void run_tasks(const SparseLoops& loops, const SparseWeightGradientParams& p, const WeightRows& w, const Grid& grid,
               const Cut& cut, Lists* lists, const float* gradients, float* listed) {
  const ConvShape& s = p.shape;
  const Maps from = {s.batch, s.in_height, s.in_width, s.in_channels};
  const std::vector<float> none(size_t(s.in_channels), 0.0f);
  const int32_t parts = lists->chunks() < 8 ? (w.outs + kOutputsAtOnce - 1) / kOutputsAtOnce : 1;
  const int32_t at_once = parts == 1 ? w.outs : kOutputsAtOnce;
  parallel_for(0, int64_t(lists->chunks()) * parts, 1, [&](int64_t begin, int64_t end) {
    Lanes lanes(grid, cut, loops.lanes);
    Aligned<float> tile;
    tile.at_least(int64_t(cut.channels) * cut.pitch * loops.lanes);
    const int64_t row = int64_t(grid.x.source.size()) * loops.lanes;
    for (int64_t task = begin; task < end; ++task) {
      const int32_t chunk = int32_t(task / parts), out = int32_t(task % parts) * at_once;
      for (int64_t group = 0; group < cut.groups; ++group) {
        loops.pack({lanes.sources(group, from, p.x, none.data()), cut.positions, cut.pitch, lists->channels_of(chunk),
                    lists->first_channel(chunk), tile.at_least(0)});
        const int64_t block = int64_t(cut.block.outputs()) * loops.lanes;
        loops.dot(cut.kind, {tile.at_least(0), row, lists->heads(chunk) + out, lists->offsets(),
                             std::min(at_once, w.outs - out), gradients + (group * w.outs + out) * block, listed});
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
  Aligned<float> gradients, rows;
  Aligned<float>& listed = list_memory().values;
  float* const packed = gradients.at_least(cut.groups * w.outs * cut.block.outputs() * loops.lanes);
  const Maps to = {s.batch, s.out_height, s.out_width, s.out_channels};
  pack_gradients(loops, p.dy, to, grid, cut, packed);
  float* const sums = listed.at_least(lists.room());
  lists.clear(sums);
  run_tasks(loops, p, w, grid, cut, &lists, packed, sums);
  const bool as_rows = p.weight.channels_last || w.taps == 1 || w.ins == 1;
  float* const dw = as_rows ? p.dw : rows.at_least(w.count());
  if (!as_rows && grid.taps() < w.taps) std::fill(dw, dw + w.count(), 0.0f);
  unlist(w, lists, sums, dw);
  if (!as_rows) to_layout(loops, w, dw, p.dw);
  list_memory().trim(w.count());
}

}  // namespace cpu
}  // namespace hn
