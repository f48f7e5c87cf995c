// sparse_conv_cpu.cpp: the sparse forward and input gradient: lists, then groups of lanes over the threads.
#include "sparse_lanes.h"
#include "sparse_lists.h"

namespace hn {
namespace cpu {
namespace {

struct Pass {
  const float* source;
  Maps from;
  float* target;
  Maps to;
};

void run_group(const SparseLoops& loops, const Pass& pass, const Cut& cut, int64_t group, const float* none,
               Lists* lists, Lanes* lanes, float* tile, float* sums) {
  const float* const* const sources = lanes->sources(group, pass.from, pass.source, none);
  const int64_t row = int64_t(cut.positions) / std::max<int64_t>(1, lanes->rows()) * loops.lanes;
  for (int32_t chunk = 0; chunk < lists->chunks(); ++chunk) {
    const int32_t first = lists->first_channel(chunk), channels = lists->channels_of(chunk);
    const int64_t ahead = chunk + 1 < lists->chunks() ? channels : lanes->next_block(pass.from.channels) - first;
    const PackArgs pack = {sources, cut.positions, cut.pitch, channels, first, tile, ahead};
    loops.pack(pack);
    const AddArgs add = {
        tile,       row, lists->heads(chunk), lists->offsets(), lists->below(), lists->values(), pass.to.channels,
        chunk == 0, sums};
    loops.add(cut.kind, lists->is_signed(), add);
  }
  float* const nowhere = nullptr;
  const WriteArgs write = {sums, pass.to.channels, cut.block.outputs(), lists->magnitude(),
                           lanes->outputs(group, pass.to, pass.target, nowhere)};
  loops.write(write);
}

void run_grid(const SparseLoops& loops, const Pass& pass, const WeightRows& w, const WeightSight& sight, int32_t width,
              Grid grid) {
  const Cut cut = cut_grid(loops, pass.from.images, w.ins, sight.density, &grid);
  Lists lists(w, grid, width, cut.pitch, cut.channels);
  lists.build(loops, sight.magnitude > 0.0f ? ListKind::kSigned : ListKind::kValued, sight.magnitude);
  const std::vector<float> none(size_t(pass.from.channels), 0.0f);
  parallel_for(0, cut.groups, 1, [&](int64_t begin, int64_t end) {
    Lanes lanes(grid, cut, loops.lanes);
    Aligned<float> tile, sums;
    tile.at_least(int64_t(cut.channels) * cut.pitch * loops.lanes);
    sums.at_least(int64_t(w.outs) * cut.block.outputs() * loops.lanes);
    for (int64_t group = begin; group < end; ++group) {
      run_group(loops, pass, cut, group, none.data(), &lists, &lanes, tile.at_least(0), sums.at_least(0));
    }
  });
}

int64_t size_of(const Maps& m) { return int64_t(m.images) * m.height * m.width * m.channels; }

}  // namespace

void sparse_conv(const SparseConvParams& p) {
  const ConvShape& s = p.shape;
  const Pass pass = {p.x,
                     {s.batch, s.in_height, s.in_width, s.in_channels},
                     p.y,
                     {s.batch, s.out_height, s.out_width, s.out_channels}};
  if (size_of(pass.to) == 0) return;
  const Grid grid = forward_grid(s);
  if (size_of(pass.from) == 0 || grid.taps() == 0) return std::fill(p.y, p.y + size_of(pass.to), 0.0f);
  const SparseLoops& loops = sparse_loops();
  WeightRows w;
  filter_rows(p.weight, s, loops, &w);
  run_grid(loops, pass, w, look_at(w), s.kernel_width, grid);
  list_memory().trim(w.count());
}

void sparse_input_gradient(const SparseInputGradientParams& p) {
  const ConvShape& s = p.shape;
  const Pass pass = {p.dy,
                     {s.batch, s.out_height, s.out_width, s.out_channels},
                     p.dx,
                     {s.batch, s.in_height, s.in_width, s.in_channels}};
  if (size_of(pass.to) == 0) return;
  const std::vector<Grid> grids = gradient_grids(s);
  int64_t reached = 0;
  for (const Grid& grid : grids) reached += int64_t(grid.y.count) * grid.x.count;
  const bool nothing = size_of(pass.from) == 0 || grids.empty();
  if (nothing || reached < int64_t(s.in_height) * s.in_width) std::fill(p.dx, p.dx + size_of(pass.to), 0.0f);
  if (nothing) return;
  const SparseLoops& loops = sparse_loops();
  WeightRows w;
  channel_rows(p.weight, s, loops, &w);
  const WeightSight sight = look_at(w);
  for (const Grid& grid : grids) run_grid(loops, pass, w, sight, s.kernel_width, grid);
  list_memory().trim(w.count());
}

}  // namespace cpu
}  // namespace hn
