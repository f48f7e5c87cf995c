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
constexpr int32_t kTiledRows = 416;         // receivers that are split at a time: 0.6 MB
constexpr int64_t kLeastBlocks = 4;         // of columns that are worth a thread

inline __m512 widened(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

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
    HN_COLUMNS(2)
    HN_MULTIPLY HN_COLUMNS(1) HN_MULTIPLY HN_COLUMNS(0) HN_MULTIPLY HN_ROWS(1) HN_COLUMNS(1) HN_MULTIPLY HN_COLUMNS(0)
        HN_MULTIPLY HN_ROWS(2) HN_MULTIPLY
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

// Some blocks of columns of the weight, of all levels. What a node sent is split once a group of images, and a
// level's gradients once a group and range of columns.
class TiledColumns {
 public:
  TiledColumns(const WiredLevelsBackwardParams& p, const int32_t* blocks, int64_t n)
      : p_(p), g_(p.graph), slots_(p.graph.slots()), blocks_(blocks), n_(n) {
    static thread_local Aligned<uint16_t> row_memory, column_memory;
    static thread_local Aligned<Part> part_memory;
    rows_ = row_memory.at_least(kPair * (kTiledRows / kBlock));
    columns_ = column_memory.at_least(kPair * n);
    split_ = part_memory.at_least(n);
  }

  void run() {
    const TileRegisters registers(true);
    for (int64_t group = 0; group < groups_of(g_); ++group) {
      for (int64_t i = 0; i < n_; ++i) split_[i] = {-1, 0};
      int32_t received = g_.levels[0].rows;
      for (int32_t j = 1; j < g_.n_levels; ++j) {
        const WiredLevel& level = g_.levels[j];
        for (int32_t row = 0; row < level.rows; row += kTiledRows) {
          const int32_t n = level.rows - row < kTiledRows ? level.rows - row : kTiledRows;
          add_rows(level, group, received, row, n);
        }
        received += level.rows;
      }
    }
  }

 private:
  static constexpr int64_t kPair = 2 * kParts * kPlane;  // of a block of rows or columns

  struct Part {
    int32_t slot, columns;  // of the first sender, and how many are split
  };

  // Rows [row, row + n) of a level; `received` is the slot of its first one.
  void add_rows(const WiredLevel& level, int64_t group, int32_t received, int32_t row, int32_t n) {
    const int32_t stop = level.column + level.columns;
    bool ready = false;
    for (int64_t i = 0; i < n_; ++i) {
      const int32_t own = blocks_[i] * kBlock;
      const int32_t first = own < level.column ? level.column : own;
      const int32_t last = own + kBlock < stop ? own + kBlock : stop;
      if (first >= last) continue;
      if (!ready) {
        const int64_t maps = group * (slots_ + g_.last().rows) + received + row;
        if (n % kBlock != 0) clear(rows_ + n / kBlock * kPair, kPair);
        split_rows(p_.received + maps * kWidth, n, rows_);
        ready = true;
      }
      uint16_t* const columns = columns_ + i * kPair;
      const int32_t slot = level.from + first - level.column;
      Part& part = split_[i];
      if (part.slot != slot || part.columns != last - first) {
        split_block(p_.sent + (group * slots_ + slot) * kWidth, last - first, columns);
        part = {slot, last - first};
      }
      for (int32_t r = 0; r < n; r += kBlock) {
        float* const to = p_.weight + int64_t(level.row + row + r) * g_.nodes + first;
        block_of(rows_ + r / 16 * kParts * kPlane, columns, to, g_.nodes, n - r, last - first);
      }
    }
  }

  static void clear(uint16_t* to, int64_t n) { __builtin_memset(to, 0, size_t(n) * sizeof(uint16_t)); }

  static void split_block(const float* sent, int32_t n, uint16_t* to) {
    for (int32_t c = 0; c < kBlock; c += 16) {
      const int32_t there = n - c < 0 ? 0 : (n - c < 16 ? n - c : 16);
      split_columns(sent + int64_t(c) * kWidth, there, to + c / 16 * kParts * kPlane);
    }
  }

  const WiredLevelsBackwardParams& p_;
  const WiredGraph& g_;
  const int32_t slots_;
  const int32_t* const blocks_;
  const int64_t n_;
  uint16_t *rows_, *columns_;
  Part* split_;
};

inline void levels_weight(const WiredLevelsBackwardParams& p) {
  const std::vector<int32_t> blocks = dealt_out((p.graph.nodes + kBlock - 1) / kBlock);
  parallel_for(0, int64_t(blocks.size()), kLeastBlocks,
               [&](int64_t begin, int64_t end) { TiledColumns(p, blocks.data() + begin, end - begin).run(); });
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
