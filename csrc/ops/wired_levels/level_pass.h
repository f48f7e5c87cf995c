// level_pass.h: a group of images through all levels, and back.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kWidth = kGroup * kMapPixels;  // of a slot in a group's maps

// Sums over edges of a group's maps, in registers.
inline void gather(const float* maps, const PlacedEdges& edges, int32_t node, float* out) {
  const int32_t* const places = edges.places.data();
  const float* const values = edges.values.data();
  const int32_t begin = edges.starts.data()[node], end = edges.starts.data()[node + 1];
  V total[kGroup * 4];
  _Pragma("GCC unroll 16") for (int v = 0; v < kGroup * 4; ++v) total[v] = zero();
  for (int32_t e = begin; e < end; ++e) {
    const float* const x = maps + int64_t(places[e]) * kWidth;
    const float* const next = maps + int64_t(places[e + 1 < end ? e + 1 : e]) * kWidth;
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
  const LevelPlaces& places;
  const PlacedEdges& edges;
  const GroupPlace at;
  float* maps;                   // what nodes send, by place
  float *sent, *normal, *rates;  // of the group, by slot; or null
  alignas(64) float received[kWidth] = {};

  void node(int32_t slot, int32_t row, bool norm) {
    const WiredGraph& g = p.graph;
    float* const own = maps + int64_t(places.of[size_t(slot)]) * kWidth;
    for (int k = 0; k < kGroup; ++k) {
      Map m = load_map(received + k * kMapPixels);
      float rate = 1.0f;
      if (norm) m = normalise(m, g.eps, &rate);
      const Map r = rectified(m, norm ? g.scale[row] : 1.0f, norm ? g.shift[row] : 0.0f);
      const Map z = filter<false>(r, g.taps + int64_t(row) * 9);
      store_map(own + k * kMapPixels, z);
      if (sent == nullptr) continue;
      stream_map(normal + int64_t(slot) * kWidth + k * kMapPixels, m);
      stream_map(sent + int64_t(slot) * kWidth + k * kMapPixels, z);
      rates[int64_t(slot) * kGroup + k] = rate;
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
        gather(maps, edges, slot - inputs, received);
        const int32_t out = level.row + i - last.row;
        if (g.lateral && j + 2 == g.n_levels && out >= 0 && out < last.rows) move<true>(out);
        node(slot, level.row + i, true);
      }
    }
    for (int32_t i = 0; i < last.rows; ++i, ++slot) {
      gather(maps, edges, slot - inputs, received);
      if (g.lateral) move<false>(i);
      move<true>(i);
    }
    settle();
  }
};

struct BackwardGroup {
  const WiredLevelsBackwardParams& p;
  const LevelPlaces& places;
  const PlacedEdges& edges;
  const GroupPlace at;
  float* maps;  // gradients of what nodes receive, by place
  const float *normal, *rates;
  float *received, *numbers;  // of the group, the first by slot
  alignas(64) float gradient[kWidth] = {};

  float* place(int32_t slot) const { return maps + int64_t(places.of[size_t(slot)]) * kWidth; }

  void add_numbers(int32_t row, const NodeSums& sums) {
    float* const to = numbers + int64_t(row) * kNodeNumbers;
    _Pragma("GCC unroll 9") for (int t = 0; t < 9; ++t) to[t] += sum(sums.taps[t]);
    to[9] += sums.scale;
    to[10] += sums.shift;
  }

  // `more` is the gradient of what the node's sum is added to, or null.
  template <bool kNorm>
  void node(int32_t slot, int32_t row, const float* more) {
    const WiredGraph& g = p.graph;
    float* const own = place(slot);
    NodeSums sums = {};
    for (int k = 0; k < kGroup; ++k) {
      Map d = node_backward<kNorm>(load_map(gradient + k * kMapPixels),
                                   load_map(normal + int64_t(slot) * kWidth + k * kMapPixels),
                                   rates[int64_t(slot) * kGroup + k], kNorm ? g.scale[row] : 1.0f,
                                   kNorm ? g.shift[row] : 0.0f, g.taps + int64_t(row) * 9, sums);
      if (more != nullptr) {
        for (int i = 0; i < 4; ++i) d.v[i] = add(d.v[i], load(more + k * kMapPixels + 16 * i));
      }
      store_map(own + k * kMapPixels, d);
      stream_map(received + int64_t(slot) * kWidth + k * kMapPixels, d);
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
        const Map d = k < at.images ? load_map(y) : zero_map();
        store_map(place(slots + i) + k * kMapPixels, d);
        stream_map(received + int64_t(slots + i) * kWidth + k * kMapPixels, d);
      }
    }
    int32_t first = slots;  // of the level
    for (int32_t j = g.n_levels - 2; j > 0; --j) {
      const WiredLevel& level = g.levels[j];
      first -= level.rows;
      for (int32_t i = 0; i < level.rows; ++i) {
        gather(maps, edges, first + i, gradient);
        const int32_t out = level.row + i - last.row;
        const bool added = g.lateral && j + 2 == g.n_levels && out >= 0 && out < last.rows;
        node<true>(first + i, level.row + i, added ? place(slots + out) : nullptr);
      }
    }
    for (int32_t i = 0; i < inputs; ++i) {
      gather(maps, edges, i, gradient);
      const int32_t row = g.levels[0].row + i;
      g.first_norm ? node<true>(i, row, nullptr) : node<false>(i, row, nullptr);
      for (int k = 0; k < at.images; ++k) {
        store_map(p.start + ((at.first + k) * inputs + i) * kMapPixels, load_map(place(i) + k * kMapPixels));
      }
    }
    settle();
  }
};

inline float* group_memory(int64_t maps) {
  static thread_local Aligned<float> memory;
  return memory.at_least(maps * kWidth);
}

inline void levels_forward(const WiredLevelsParams& p, const LevelPlaces& places, const PlacedEdges& edges) {
  const int64_t slots = p.graph.slots(), room = slots * kWidth;
  parallel_for(0, groups_of(p.graph), 1, [&](int64_t begin, int64_t end) {
    float* const maps = group_memory(places.room);
    for (int64_t group = begin; group < end; ++group) {
      ForwardGroup pass{p, places, edges, GroupPlace(p.graph, group), maps, nullptr, nullptr, nullptr};
      if (p.sent != nullptr) {
        pass.sent = p.sent + group * room;
        pass.normal = p.normal + group * room;
        pass.rates = p.rates + group * slots * kGroup;
      }
      pass.run();
    }
  });
}

inline void levels_backward(const WiredLevelsBackwardParams& p, const LevelPlaces& places, const PlacedEdges& edges) {
  const WiredGraph& g = p.graph;
  const int64_t slots = g.slots(), room = slots * kWidth, wide = (slots + g.last().rows) * kWidth;
  parallel_for(0, groups_of(g), 1, [&](int64_t begin, int64_t end) {
    float* const maps = group_memory(places.room);
    for (int64_t group = begin; group < end; ++group) {
      BackwardGroup pass{p,
                         places,
                         edges,
                         GroupPlace(g, group),
                         maps,
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
