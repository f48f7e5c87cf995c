// wired_levels_cpu.cpp: the lists of edges, and the choice of loops.
#include <algorithm>

#include "../../base/amx.h"
#include "../../base/parallel.h"
#include "../wired_sum/wired_sum.h"
#include "level_edges.h"
#include "wired_levels.h"

namespace hn {
namespace cpu {
namespace {

bool same_part(const WiredLevel& a, const WiredLevel& b) {
  return a.row == b.row && a.rows == b.rows && a.column == b.column && a.columns == b.columns;
}

LevelLoops loops() {
#if defined(HN_X86)
  static const bool fma = __builtin_cpu_supports("fma");
  if (isa() == Isa::kAvx2 && wide()) return matrix_tiles() ? amx_level_loops() : avx512_level_loops();
  if (isa() == Isa::kAvx2 && fma) return avx2_level_loops();
#endif
  return scalar_level_loops();
}

// The sums over groups of images, in their order.
void add_up_numbers(const WiredLevelsBackwardParams& p, int64_t groups) {
  const int64_t nodes = p.graph.nodes;
  parallel_for(0, nodes, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      double sum[kNodeNumbers] = {};
      for (int64_t g = 0; g < groups; ++g) {
        const float* const part = p.numbers + (g * nodes + n) * kNodeNumbers;
        for (int32_t i = 0; i < kNodeNumbers; ++i) sum[i] += double(part[i]);
      }
      for (int32_t i = 0; i < 9; ++i) p.taps[n * 9 + i] = float(sum[i]);
      p.scale[n] = float(sum[9]);
      p.shift[n] = float(sum[10]);
    }
  });
}

// By receiver, with slots for places.
PlacedEdges sums_of_slots(const WiredGraph& g) {
  PlacedEdges all;
  all.starts.push_back(0);
  std::vector<int32_t> starts, sources;
  std::vector<float> values;
  for (int32_t j = 1; j < g.n_levels; ++j) {
    const WiredLevel& level = g.levels[j];
    if (j == 1 || !same_part(level, g.levels[j - 1])) {
      const float* const weight = g.weight + int64_t(level.row) * g.nodes + level.column;
      starts.assign(size_t(level.rows) + 1, 0);
      edge_starts({weight, g.nodes, level.rows, level.columns, starts.data()});
      const int32_t n = starts.back();
      sources.resize(size_t(n));
      values.resize(size_t(n));
      pack_edges({weight, g.nodes, level.rows, level.columns, starts.data(), n, sources.data(), values.data()});
    }
    const int32_t before = all.starts.back();
    for (int32_t r = 0; r < level.rows; ++r) all.starts.push_back(before + starts[size_t(r) + 1]);
    for (const int32_t source : sources) all.places.push_back(level.from + source);
    all.values.insert(all.values.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace

std::vector<int32_t> dealt_out(int32_t n) {
  int bits = 0;
  while (int64_t(1) << bits < n) ++bits;
  std::vector<int32_t> order;
  for (int64_t i = 0; i < int64_t(1) << bits; ++i) {
    int64_t turned = 0;
    for (int b = 0; b < bits; ++b) turned |= (i >> b & 1) << (bits - 1 - b);
    if (turned < n) order.push_back(int32_t(turned));
  }
  return order;
}

LevelPlaces::LevelPlaces(const WiredGraph& g) {
  int32_t before = 0, slot = 0, widest = 0;  // first slot of the level before, of this one
  bool chain = !g.lateral;
  for (int32_t j = 0; j < g.n_levels; ++j) {
    const WiredLevel& level = g.levels[j];
    chain &= j == 0 || (level.from >= before && level.from + level.columns <= slot);
    widest = std::max(widest, level.rows);
    before = slot;
    slot += level.rows;
  }
  for (int32_t j = 0; j < g.n_levels; ++j) {
    const int32_t first = chain ? j % 2 * widest : int32_t(of.size());
    for (int32_t i = 0; i < g.levels[j].rows; ++i) of.push_back(first + i);
  }
  room = chain ? 2 * widest : slot;
}

PlacedEdges edges_by_receiver(const WiredGraph& g, const LevelPlaces& places) {
  PlacedEdges out = sums_of_slots(g);
  for (int32_t& place : out.places) place = places.of[size_t(place)];
  return out;
}

PlacedEdges edges_by_sender(const WiredGraph& g, const LevelPlaces& places) {
  const PlacedEdges sums = sums_of_slots(g);
  const size_t slots = size_t(g.slots()), n = sums.places.size();
  PlacedEdges out;
  out.starts.assign(slots + 1, 0);
  out.places.resize(n);
  out.values.resize(n);
  for (const int32_t slot : sums.places) ++out.starts[size_t(slot) + 1];
  for (size_t s = 0; s < slots; ++s) out.starts[s + 1] += out.starts[s];
  std::vector<int32_t> next(out.starts.begin(), out.starts.end() - 1);
  for (size_t r = 0; r + 1 < sums.starts.size(); ++r) {
    for (int32_t e = sums.starts[r]; e < sums.starts[r + 1]; ++e) {
      const size_t at = size_t(next[size_t(sums.places[size_t(e)])]++);
      out.places[at] = places.of[size_t(g.levels[0].rows) + r];
      out.values[at] = sums.values[size_t(e)];
    }
  }
  return out;
}

void wired_levels(const WiredLevelsParams& p) {
  if (p.graph.images == 0) return;
  const LevelPlaces places(p.graph);
  loops().forward(p, places, edges_by_receiver(p.graph, places));
}

void wired_levels_backward(const WiredLevelsBackwardParams& p) {
  const WiredGraph& g = p.graph;
  const LevelLoops chosen = loops();
  const int64_t groups = (int64_t(g.images) + chosen.group - 1) / chosen.group;
  std::fill(p.numbers, p.numbers + groups * g.nodes * kNodeNumbers, 0.0f);
  if (p.weight != nullptr) std::fill(p.weight, p.weight + int64_t(g.nodes) * g.nodes, 0.0f);
  if (g.images > 0) {
    const LevelPlaces places(g);
    chosen.backward(p, places, edges_by_sender(g, places));
    if (p.weight != nullptr) chosen.weight_gradient(p);
  }
  add_up_numbers(p, groups);
}

}  // namespace cpu
}  // namespace hn
