// level_weight.h: the weight's gradient: for each level its sums' gradients times what was sent, over images and pixels.
//
// A tile of kTileRows x kTileVectors vectors stays in registers over a few groups of images; what was sent is turned
// first, senders side by side, so that a vector is sixteen of them.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kPanel = 16 * kTileVectors;  // senders of a tile
constexpr int kChunk = 512 / kWidth;       // groups that are turned at a time
constexpr int32_t kMostColumns = 416;      // senders that are turned at a time: 0.8 MB

struct WeightPart {
  const WiredLevelsBackwardParams& p;
  const int32_t received, wide, slots;  // slot of the level's first row; slots of a group in both
  const WiredLevel level;
  const int32_t column, columns;  // of this part
  const int64_t group, groups;    // of this chunk
  float* turned;                  // [panels][groups kWidth][kPanel]

  const float* sent(int64_t g, int32_t c) const {
    return p.sent + (g * slots + level.from + column + c - level.column) * kWidth;
  }

  void turn_all() const {
    const int64_t steps = groups * kWidth;
    for (int32_t c = 0; c < columns; c += 16) {
      float* const panel = turned + c / kPanel * steps * kPanel + c % kPanel;
      const int32_t n = columns - c < 16 ? columns - c : 16;
      for (int64_t k = 0; k < steps; k += 16) {
        const float* const from = sent(group + k / kWidth, c) + k % kWidth;
        float* const to = panel + k * kPanel;
        if (n == 16) {
          turn(from, kWidth, to, kPanel);
          continue;
        }
        for (int i = 0; i < 16; ++i) {
          for (int j = 0; j < 16; ++j) to[i * kPanel + j] = j < n ? from[j * kWidth + i] : 0.0f;
        }
      }
    }
    // vectors of the last panel that no sender fills keep what was there: their sums are dropped
  }

  template <int kRows>
  void tile(int32_t row, int32_t c) const {
    const int64_t steps = groups * kWidth;
    const float* b = turned + c / kPanel * steps * kPanel;
    V total[kRows][kTileVectors];
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 2") for (int v = 0; v < kTileVectors; ++v) total[r][v] = zero();
    }
    for (int64_t g = group; g < group + groups; ++g) {
      const float* const a = p.received + (g * wide + received + row) * kWidth;
      for (int k = 0; k < kWidth; ++k, b += kPanel) {
        V own[kTileVectors];
        _Pragma("GCC unroll 2") for (int v = 0; v < kTileVectors; ++v) own[v] = load(b + 16 * v);
        _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
          const V w = all(a[r * kWidth + k]);
          _Pragma("GCC unroll 2") for (int v = 0; v < kTileVectors; ++v) total[r][v] = fma(w, own[v], total[r][v]);
        }
      }
    }
    const int32_t left = columns - c;
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      float* const to = p.weight + int64_t(level.row + row + r) * p.graph.nodes + column + c;
      _Pragma("GCC unroll 2") for (int v = 0; v < kTileVectors; ++v) {
        if (left >= 16 * (v + 1)) {
          store(to + 16 * v, add(load(to + 16 * v), total[r][v]));
        } else if (left > 16 * v) {
          float rest[16];
          store(rest, total[r][v]);
          for (int i = 0; i < left - 16 * v; ++i) to[16 * v + i] += rest[i];
        }
      }
    }
  }

  template <int kRows>
  int32_t tiles(int32_t row, int32_t end) const {
    for (; row + kRows <= end; row += kRows) {
      for (int32_t c = 0; c < columns; c += kPanel) tile<kRows>(row, c);
    }
    return row;
  }

  void multiply(int32_t row, int32_t end) const {
    row = tiles<kTileRows>(row, end);
    row = tiles<kTileRows / 2>(row, end);
    tiles<1>(row, end);
  }
};

// Rows [row, end) of a level's part of the weight.
inline void level_weight(const WiredLevelsBackwardParams& p, const WiredLevel& level, int32_t received, int32_t row,
                         int32_t end) {
  static thread_local Aligned<float> memory;
  const WiredGraph& g = p.graph;
  const int32_t slots = g.slots(), parts = (level.columns + kMostColumns - 1) / kMostColumns;
  const int32_t width = parts == 0 ? 0 : ((level.columns + parts - 1) / parts + kPanel - 1) / kPanel * kPanel;
  float* const turned = memory.at_least(int64_t(width) * kChunk * kWidth);
  const int64_t groups = groups_of(g);
  for (int32_t first = 0; first < level.columns; first += width) {
    const int32_t columns = level.columns - first < width ? level.columns - first : width;
    for (int64_t group = 0; group < groups; group += kChunk) {
      const int64_t n = groups - group < kChunk ? groups - group : kChunk;
      const WeightPart part{p, received, slots + g.last().rows, slots, level, level.column + first, columns, group,
                            n, turned};
      part.turn_all();
      part.multiply(row, end);
    }
  }
}

inline void levels_weight(const WiredLevelsBackwardParams& p) {
  int32_t received = p.graph.levels[0].rows;
  for (int32_t j = 1; j < p.graph.n_levels; ++j) {
    const WiredLevel& level = p.graph.levels[j];
    parallel_for(0, (level.rows + kTileRows - 1) / kTileRows, 1, [&](int64_t begin, int64_t end) {
      const int64_t stop = end * kTileRows < level.rows ? end * kTileRows : level.rows;
      level_weight(p, level, received, int32_t(begin) * kTileRows, int32_t(stop));
    });
    received += level.rows;
  }
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
