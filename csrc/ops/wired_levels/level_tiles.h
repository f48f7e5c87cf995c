// level_tiles.h: the weight's gradient on AMX: float32 factors as sums of three bfloat16 numbers, of whose nine products
// the six largest are taken, so that a product keeps about 24 bits, as a float32 one does.
//
// A block of 32 x 32 weights stays in four tiles over one group of images.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kParts = 3;
constexpr int kSteps = kWidth / 32;         // products of tiles, 32 pixels each
constexpr int64_t kTile = 512;              // bfloat16 numbers of a tile
constexpr int64_t kPlane = kSteps * kTile;  // of 16 rows or columns over a group, of one part
constexpr int kBlock = 32;                  // rows and columns that are multiplied at once
constexpr int32_t kTiledColumns = 416;      // senders that are split at a time: 0.6 MB

struct TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline __m512 widened(__m256i half) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// 32 numbers as three parts of 32.
inline void split(const float* x, __m512i* part) {
  __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
  _Pragma("GCC unroll 3") for (int i = 0; i < kParts; ++i) {
    part[i] = __m512i(_mm512_cvtne2ps_pbh(high, low));
    if (i + 1 == kParts) break;
    low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(part[i])));
    high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64(part[i], 1)));
  }
}

// Rows [0, n) as tiles: [16 rows][part][step][row][32 pixels].
inline void split_rows(const float* x, int32_t n, uint16_t* to) {
  for (int32_t r = 0; r < n; ++r, x += kWidth) {
    uint16_t* const row = to + r / 16 * kParts * kPlane + r % 16 * 32;
    for (int k = 0; k < kSteps; ++k) {
      __m512i part[kParts];
      split(x + 32 * k, part);
      for (int i = 0; i < kParts; ++i) _mm512_storeu_si512(row + i * kPlane + k * kTile, part[i]);
    }
  }
}

// Sixteen senders, of which n are there, as tiles: [part][step][pair of pixels][sender][2].
inline void split_columns(const float* x, int32_t n, uint16_t* to) {
  alignas(64) float rows[kParts][16][16] = {};
  for (int k = 0; k < kSteps; ++k) {
    for (int32_t c = 0; c < n; ++c) {
      __m512i part[kParts];
      split(x + int64_t(c) * kWidth + 32 * k, part);
      for (int i = 0; i < kParts; ++i) _mm512_store_si512(rows[i][c], part[i]);
    }
    for (int i = 0; i < kParts; ++i) {
      turn(rows[i][0], 16, reinterpret_cast<float*>(to + i * kPlane + k * kTile), 16);
    }
  }
}

#define HN_ROWS(i)                                     \
  _tile_loadd(4, rows + (i) * kPlane + k * kTile, 64); \
  _tile_loadd(5, rows + (kParts + (i)) * kPlane + k * kTile, 64);
#define HN_COLUMNS(i)                                     \
  _tile_loadd(6, columns + (i) * kPlane + k * kTile, 64); \
  _tile_loadd(7, columns + (kParts + (i)) * kPlane + k * kTile, 64);
#define HN_MULTIPLY        \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7);

// Adds to 32 x 32 weights; four tiles at once, since a product waits for the one before in its tile.
inline void multiply_block(const uint16_t* rows, const uint16_t* columns, float* to, int64_t to_row) {
  const int64_t bytes = to_row * int64_t(sizeof(float));
  _tile_loadd(0, to, bytes);
  _tile_loadd(1, to + 16, bytes);
  _tile_loadd(2, to + 16 * to_row, bytes);
  _tile_loadd(3, to + 16 * to_row + 16, bytes);
  for (int k = 0; k < kSteps; ++k) {
    HN_ROWS(0)
    HN_COLUMNS(2) HN_MULTIPLY HN_COLUMNS(1) HN_MULTIPLY HN_COLUMNS(0) HN_MULTIPLY HN_ROWS(1) HN_COLUMNS(1)
        HN_MULTIPLY HN_COLUMNS(0) HN_MULTIPLY HN_ROWS(2) HN_MULTIPLY
  }
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + 16, bytes);
  _tile_stored(2, to + 16 * to_row, bytes);
  _tile_stored(3, to + 16 * to_row + 16, bytes);
}

#undef HN_ROWS
#undef HN_COLUMNS
#undef HN_MULTIPLY

inline void block_of(const uint16_t* rows, const uint16_t* columns, float* to, int64_t to_row, int32_t n_rows,
                     int32_t n_columns) {
  if (n_rows >= kBlock && n_columns >= kBlock) return multiply_block(rows, columns, to, to_row);
  alignas(64) float own[kBlock * kBlock] = {};
  multiply_block(rows, columns, own, kBlock);
  for (int r = 0; r < kBlock && r < n_rows; ++r) {
    for (int c = 0; c < kBlock && c < n_columns; ++c) to[r * to_row + c] += own[r * kBlock + c];
  }
}

// Rows [row, end) of a level's part of the weight; `received` is the slot of the level's first row.
inline void tiled_weight(const WiredLevelsBackwardParams& p, const WiredLevel& level, int32_t received, int32_t row,
                         int32_t end) {
  static thread_local Aligned<uint16_t> row_memory, column_memory;
  const WiredGraph& g = p.graph;
  const int32_t slots = g.slots(), rows = end - row;
  const auto blocks = [](int32_t n) { return int64_t(n + kBlock - 1) / kBlock; };
  const auto room = [&](int32_t n) { return blocks(n) * 2 * kParts * kPlane; };
  uint16_t* const left = row_memory.at_least(room(rows));
  uint16_t* const right = column_memory.at_least(room(kTiledColumns));
  __builtin_memset(left, 0, size_t(room(rows)) * sizeof(uint16_t));  // rows that fill no block stay zeros
  const TileConfig config;
  _tile_loadconfig(&config);
  for (int64_t group = 0; group < groups_of(g); ++group) {
    split_rows(p.received + (group * (slots + g.last().rows) + received + row) * kWidth, rows, left);
    for (int32_t first = 0; first < level.columns; first += kTiledColumns) {
      const int32_t columns = level.columns - first < kTiledColumns ? level.columns - first : kTiledColumns;
      const float* const sent = p.sent + (group * slots + level.from + first) * kWidth;
      for (int32_t c = 0; c < blocks(columns) * kBlock; c += 16) {
        const int32_t n = columns - c < 0 ? 0 : (columns - c < 16 ? columns - c : 16);
        split_columns(sent + int64_t(c) * kWidth, n, right + c / 16 * kParts * kPlane);
      }
      for (int32_t c = 0; c < columns; c += kBlock) {
        for (int32_t r = 0; r < rows; r += kBlock) {
          float* const to = p.weight + int64_t(level.row + row + r) * g.nodes + level.column + first + c;
          block_of(left + r / 16 * kParts * kPlane, right + c / 16 * kParts * kPlane, to, g.nodes, rows - r,
                   columns - c);
        }
      }
    }
  }
  _tile_release();
}

inline void levels_weight(const WiredLevelsBackwardParams& p) {
  int32_t received = p.graph.levels[0].rows;
  for (int32_t j = 1; j < p.graph.n_levels; ++j) {
    const WiredLevel& level = p.graph.levels[j];
    parallel_for(0, (level.rows + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
      const int64_t stop = end * kBlock < level.rows ? end * kBlock : level.rows;
      tiled_weight(p, level, received, int32_t(begin) * kBlock, int32_t(stop));
    });
    received += level.rows;
  }
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
