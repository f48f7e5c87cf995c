// level_pass.h: a group of images through all levels, and back.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kWidth = kGroup * kMapPixels;  // of a slot in a group's maps

// Sums over edges of a group's maps, in registers.
inline void gather(const float* maps, const SlotEdges& edges, int32_t node, float* out) {
  const int32_t* const slots = edges.slots.data();
  const float* const values = edges.values.data();
  const int32_t begin = edges.starts.data()[node], end = edges.starts.data()[node + 1];
  V total[kGroup * 4];
  _Pragma("GCC unroll 16") for (int v = 0; v < kGroup * 4; ++v) total[v] = zero();
  for (int32_t e = begin; e < end; ++e) {
    const float* const x = maps + int64_t(slots[e]) * kWidth;
    const float* const next = maps + int64_t(slots[e + 1 < end ? e + 1 : e]) * kWidth;
    const V w = all(values[e]);
    _Pragma("GCC unroll 16") for (int v = 0; v < kGroup * 4; ++v) {
      fetch(next + 16 * v);
      total[v] = fma(w, load(x + 16 * v), total[v]);
    }
  }
  _Pragma("GCC unroll 16") for (int v = 0; v < kGroup * 4; ++v) store(out + 16 * v, total[v]);
}

// Where a group's maps lie.
struct GroupPlace {
  int64_t first;  // image
  int32_t images;

  GroupPlace(const WiredGraph& g, int64_t group)
      : first(group * kGroup), images(g.images - first < kGroup ? int32_t(g.images - first) : kGroup) {}
};

inline int64_t groups_of(const WiredGraph& g) { return (g.images + kGroup - 1) / kGroup; }

struct ForwardGroup {
  const WiredLevelsParams& p;
  const SlotEdges& edges;
  const GroupPlace at;
  float *sent, *normal, *rates;  // of the group; the last two may be null
  alignas(64) float received[kWidth] = {};

  void node(int32_t slot, int32_t row, bool norm) {
    const WiredGraph& g = p.graph;
    for (int k = 0; k < kGroup; ++k) {
      Map m = load_map(received + k * kMapPixels);
      float rate = 1.0f;
      if (norm) m = normalise(m, g.eps, &rate);
      if (normal != nullptr) {
        store_map(normal + int64_t(slot) * kWidth + k * kMapPixels, m);
        rates[int64_t(slot) * kGroup + k] = rate;
      }
      const Map r = rectified(m, norm ? g.scale[row] : 1.0f, norm ? g.shift[row] : 0.0f);
      store_map(sent + int64_t(slot) * kWidth + k * kMapPixels, filter<false>(r, g.taps + int64_t(row) * 9));
    }
  }

  // The group's part of a map of the result, from or to `received`.
  template <bool kOut>
  void move(int32_t i) {
    const int64_t rows = p.graph.last().rows;
    for (int k = 0; k < at.images; ++k) {
      float* const y = p.out + ((at.first + k) * rows + i) * kMapPixels;
      const Map m = load_map(received + k * kMapPixels);
      if (kOut) {
        store_map(y, m);
      } else {
        const Map before = load_map(y);
        for (int j = 0; j < 4; ++j) store(received + k * kMapPixels + 16 * j, add(before.v[j], m.v[j]));
      }
    }
  }

  void run() {
    const WiredGraph& g = p.graph;
    const WiredLevel& last = g.last();
    const int32_t inputs = g.levels[0].rows;
    for (int32_t i = 0; i < inputs; ++i) {
      for (int k = 0; k < kGroup; ++k) {
        const float* const x = p.start + ((at.first + k) * inputs + i) * kMapPixels;
        store_map(received + k * kMapPixels, k < at.images ? load_map(x) : zero_map());
      }
      node(i, g.levels[0].row + i, g.first_norm);
    }
    int32_t slot = inputs;
    for (int32_t j = 1; j + 1 < g.n_levels; ++j) {
      const WiredLevel& level = g.levels[j];
      for (int32_t i = 0; i < level.rows; ++i, ++slot) {
        gather(sent, edges, slot - inputs, received);
        const int32_t out = level.row + i - last.row;
        if (g.lateral && j + 2 == g.n_levels && out >= 0 && out < last.rows) move<true>(out);
        node(slot, level.row + i, true);
      }
    }
    for (int32_t i = 0; i < last.rows; ++i, ++slot) {
      gather(sent, edges, slot - inputs, received);
      if (g.lateral) move<false>(i);
      move<true>(i);
    }
  }
};

struct BackwardGroup {
  const WiredLevelsBackwardParams& p;
  const SlotEdges& edges;
  const GroupPlace at;
  const float *normal, *rates;
  float *received, *numbers;  // of the group
  alignas(64) float gradient[kWidth] = {};

  void add_numbers(int32_t row, const NodeSums& sums) {
    float* const to = numbers + int64_t(row) * kNodeNumbers;
    _Pragma("GCC unroll 9") for (int t = 0; t < 9; ++t) to[t] += sum(sums.taps[t]);
    to[9] += sums.scale;
    to[10] += sums.shift;
  }

  template <bool kNorm>
  void node(int32_t slot, int32_t row) {
    const WiredGraph& g = p.graph;
    NodeSums sums = {};
    for (int k = 0; k < kGroup; ++k) {
      const Map d = node_backward<kNorm>(load_map(gradient + k * kMapPixels),
                                         load_map(normal + int64_t(slot) * kWidth + k * kMapPixels),
                                         rates[int64_t(slot) * kGroup + k], kNorm ? g.scale[row] : 1.0f,
                                         kNorm ? g.shift[row] : 0.0f, g.taps + int64_t(row) * 9, sums);
      store_map(received + int64_t(slot) * kWidth + k * kMapPixels, d);
    }
    add_numbers(row, sums);
  }

  void run() {
    const WiredGraph& g = p.graph;
    const WiredLevel& last = g.last();
    const int32_t slots = g.slots(), inputs = g.levels[0].rows;
    for (int32_t i = 0; i < last.rows; ++i) {
      for (int k = 0; k < kGroup; ++k) {
        const float* const y = p.gradient + ((at.first + k) * last.rows + i) * kMapPixels;
        store_map(received + int64_t(slots + i) * kWidth + k * kMapPixels, k < at.images ? load_map(y) : zero_map());
      }
    }
    int32_t slot = slots;
    for (int32_t j = g.n_levels - 2; j > 0; --j) {
      const WiredLevel& level = g.levels[j];
      for (int32_t i = level.rows - 1; i >= 0; --i) {
        gather(received, edges, --slot, gradient);
        node<true>(slot, level.row + i);
        const int32_t out = level.row + i - last.row;
        if (!g.lateral || j + 2 != g.n_levels || out < 0 || out >= last.rows) continue;
        float* const to = received + int64_t(slot) * kWidth;
        const float* const from = received + int64_t(slots + out) * kWidth;
        for (int v = 0; v < kWidth; v += 16) store(to + v, add(load(to + v), load(from + v)));
      }
    }
    for (int32_t i = 0; i < inputs; ++i) {
      gather(received, edges, i, gradient);
      g.first_norm ? node<true>(i, g.levels[0].row + i) : node<false>(i, g.levels[0].row + i);
      for (int k = 0; k < at.images; ++k) {
        store_map(p.start + ((at.first + k) * inputs + i) * kMapPixels,
                  load_map(received + int64_t(i) * kWidth + k * kMapPixels));
      }
    }
  }
};

inline void levels_forward(const WiredLevelsParams& p, const SlotEdges& edges) {
  const int64_t slots = p.graph.slots(), room = slots * kWidth;
  parallel_for(0, groups_of(p.graph), 1, [&](int64_t begin, int64_t end) {
    Aligned<float> own;
    for (int64_t group = begin; group < end; ++group) {
      ForwardGroup pass{p, edges, GroupPlace(p.graph, group), nullptr, nullptr, nullptr};
      const bool kept = p.sent != nullptr;
      pass.sent = kept ? p.sent + group * room : own.at_least(room);
      if (kept) {
        pass.normal = p.normal + group * room;
        pass.rates = p.rates + group * slots * kGroup;
      }
      pass.run();
    }
  });
}

inline void levels_backward(const WiredLevelsBackwardParams& p, const SlotEdges& edges) {
  const WiredGraph& g = p.graph;
  const int64_t slots = g.slots(), room = slots * kWidth, wide = (slots + g.last().rows) * kWidth;
  parallel_for(0, groups_of(g), 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      BackwardGroup pass{p,
                         edges,
                         GroupPlace(g, group),
                         p.normal + group * room,
                         p.rates + group * slots * kGroup,
                         p.received + group * wide,
                         p.numbers + group * g.nodes * kNodeNumbers};
      pass.run();
    }
  });
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
