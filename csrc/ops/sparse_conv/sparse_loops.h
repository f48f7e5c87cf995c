// sparse_loops.h: the loops over lists and tiles. No guard: included once an instruction set, with HN_LANES, the namespace
// of its vectors, and HN_LANES_TARGET.

namespace hn {
namespace cpu {
namespace HN_LANES {

// Rows are read tap by tap, a line here and there: those of the next rows are asked for early.
template <ListKind kKind>
HN_LANES_TARGET inline bool build_kind(const BuildArgs& a) {
  constexpr int32_t kUnit = kLanes * int32_t(sizeof(float)) / 8, kAhead = 4;
  const Places lanes = places(0, a.positions * kUnit);
  const int32_t channels = a.channels, taps = a.taps;
  unsigned as_told = 1;
  int64_t end = a.start, below = a.start;
  for (int32_t o = 0; o < a.outs; ++o) {
    const float* const weight = a.weight + o * a.out_stride;
    const int64_t ahead = (o + kAhead < a.outs ? kAhead : 0) * a.out_stride;
    uint16_t *const to = a.offsets + end, *const to_below = a.below + below;
    float* const values = a.values + end;
    int32_t first = 0, second = 0;
    for (int32_t t = 0; t < taps; ++t) {
      const float* const w = weight + a.tap_at[t];
      Places at = moved(lanes, a.tap_place[t] * kUnit);
      for (int32_t c = 0; c < channels; c += kLanes, advance(&at)) {
        __builtin_prefetch(w + ahead + c);
        const V v = channels - c < kLanes ? load_part(w + c, channels - c) : load(w + c);
        const unsigned kept = nonzero(v);
        if (kKind == ListKind::kSigned) {
          const unsigned above = positive(v);
          as_told &= unsigned(magnitude_is(v, a.magnitude) == kept);
          first += append(above, at, to + first);
          second += append(kept & ~above, at, to_below + second);
        } else {
          if (kKind == ListKind::kValued) append_values(kept, v, values + first);
          first += append(kept, at, to + first);
        }
      }
    }
    a.heads[o] = {end, below, first, second};
    end += first;
    below += second;
  }
  return as_told != 0;
}

inline bool build_lists(const BuildArgs& a) {
  switch (a.kind) {
    case ListKind::kSigned: return build_kind<ListKind::kSigned>(a);
    case ListKind::kValued: return build_kind<ListKind::kValued>(a);
    default: return build_kind<ListKind::kPlaces>(a);
  }
}

HN_LANES_TARGET inline void pack_tile(const PackArgs& a) {
  for (int32_t p = 0; p < a.positions; ++p) {
    const float* const* const from = a.from + int64_t(p) * kLanes;
    for (int32_t c = 0; c < a.channels; c += kLanes) {
      const int32_t n = a.channels - c < kLanes ? a.channels - c : kLanes;
      for (int l = 0; l < kLanes; ++l) __builtin_prefetch(from[l] + a.first + c + a.ahead, 0, 2);
      V v[kLanes];
      if (n == kLanes) {
        _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) v[l] = load(from[l] + a.first + c);
      } else {
        _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) v[l] = load_part(from[l] + a.first + c, n);
      }
      turn(v);
      float* const to = a.tile + (int64_t(c) * a.pitch + p) * kLanes;
      if (n == kLanes) {
        _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) store(to + int64_t(l) * a.pitch * kLanes, v[l]);
      } else {
        for (int l = 0; l < n; ++l) store(to + int64_t(l) * a.pitch * kLanes, v[l]);
      }
    }
  }
}

// Sums of a block stay in registers while an output's list is walked. A chunk's are made by themselves, then added: that
// keeps the error down.
template <int kRows, int kColumns, bool kIsSigned>
HN_LANES_TARGET inline void add_block(const AddArgs& a) {
  constexpr int kBlock = kRows * kColumns;
  const int64_t row = a.row;
  for (int32_t o = 0; o < a.outs; ++o) {
    const ListHead head = a.heads[o];
    float* const sums = a.sums + int64_t(o) * kBlock * kLanes;
    V s[kRows][kColumns];
    _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
      _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) { s[i][j] = spread(0.0f); }
    }
    const uint16_t* const offsets = a.offsets + head.start;
    const float* const values = kIsSigned ? nullptr : a.values + head.start;
    for (int32_t e = 0; e < head.first; ++e) {
      const float* at = a.tile + size_t(offsets[e]) * 2;
      const V w = kIsSigned ? V{} : spread(values[e]);
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i, at = opaque(at + row)) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
          const V x = load(at + j * kLanes);
          s[i][j] = kIsSigned ? add(s[i][j], x) : add_product(w, x, s[i][j]);
        }
      }
    }
    const uint16_t* const below = kIsSigned ? a.below + head.below : nullptr;
    for (int32_t e = 0; kIsSigned && e < head.second; ++e) {
      const float* at = a.tile + size_t(below[e]) * 2;
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i, at = opaque(at + row)) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
          s[i][j] = subtract(s[i][j], load(at + j * kLanes));
        }
      }
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
      _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
        float* const sum = sums + (i * kColumns + j) * kLanes;
        store(sum, a.fresh ? s[i][j] : add(load(sum), s[i][j]));
      }
    }
  }
}

// An output's gradients of a block stay in registers; the sums of kLanes entries are turned and added up together.
template <int kRows, int kColumns>
HN_LANES_TARGET inline void dot_block(const DotArgs& a) {
  constexpr int kBlock = kRows * kColumns, kParts = kLanes > 8 && kBlock > 8 ? 4 : (kBlock > 1 ? 2 : 1);
  alignas(64) float parts[kLanes * kLanes] = {};
  const int64_t row = a.row;
  for (int32_t o = 0; o < a.outs; ++o) {
    const ListHead head = a.heads[o];
    const float* const gradients = a.gradients + int64_t(o) * kBlock * kLanes;
    V g[kBlock];
    _Pragma("GCC unroll 16") for (int i = 0; i < kBlock; ++i) g[i] = load(gradients + i * kLanes);
    const uint16_t* const offsets = a.offsets + head.start;
    float* const dw = a.dw + head.start;
    for (int32_t e = 0; e < head.first; e += kLanes) {
      const int32_t n = head.first - e < kLanes ? head.first - e : kLanes;
      for (int32_t k = 0; k < n; ++k) {
        const float* at = a.tile + size_t(offsets[e + k]) * 2;
        V sums[kParts];
        _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i, at = opaque(at + row)) {
          _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
            const int p = i * kColumns + j;
            const V x = load(at + j * kLanes);
            sums[p % kParts] = p < kParts ? multiply(g[p], x) : add_product(g[p], x, sums[p % kParts]);
          }
        }
        _Pragma("GCC unroll 2") for (int half = kParts / 2; half > 0; half /= 2) {
          _Pragma("GCC unroll 2") for (int p = 0; p < half; ++p) sums[p] = add(sums[p], sums[p + half]);
        }
        store(parts + k * kLanes, sums[0]);
      }
      V v[kLanes];
      _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) v[l] = load(parts + l * kLanes);
      const V sums = totals(v);
      if (n == kLanes) {
        store(dw + e, a.fresh ? sums : add(load(dw + e), sums));
      } else {
        store_part(dw + e, n, a.fresh ? sums : add(load_part(dw + e, n), sums));
      }
    }
  }
}

HN_LANES_TARGET inline void write_block(const WriteArgs& a) {
  const V factor = spread(a.factor);
  const int64_t out = int64_t(a.block) * kLanes;
  for (int32_t p = 0; p < a.block; ++p) {
    float* const* const to = a.to + p * kLanes;
    for (int32_t o = 0; o < a.outs; o += kLanes) {
      const int32_t n = a.outs - o < kLanes ? a.outs - o : kLanes;
      const float* const from = a.sums + (int64_t(o) * a.block + p) * kLanes;
      V v[kLanes];
      _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) {
        v[l] = multiply(factor, load(from + (l < n ? l : 0) * out));
      }
      turn(v);
      if (n == kLanes) {
        _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) {
          if (to[l] != nullptr) store(to[l] + o, v[l]);
        }
      } else {
        _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) {
          if (to[l] != nullptr) store_part(to[l] + o, n, v[l]);
        }
      }
    }
  }
}

HN_LANES_TARGET inline void turn_matrix(const TurnArgs& a) {
  for (int64_t r = 0; r < a.rows; r += kLanes) {
    const int rows = int(a.rows - r < kLanes ? a.rows - r : kLanes);
    for (int32_t k = 0; k < a.columns; k += kLanes) {
      const int columns = int(a.columns - k < kLanes ? a.columns - k : kLanes);
      V v[kLanes];
      _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) {
        const float* const from = a.from + (r + (l < rows ? l : 0)) * a.row + k;
        v[l] = columns < kLanes ? load_part(from, columns) : load(from);
      }
      turn(v);
      _Pragma("GCC unroll 16") for (int l = 0; l < kLanes; ++l) {
        if (l >= columns) continue;
        rows < kLanes ? store_part(a.to[k + l] + r, rows, v[l]) : store(a.to[k + l] + r, v[l]);
      }
    }
  }
}

template <int kRows, int kColumns>
HN_LANES_TARGET inline void add_kind(bool is_signed, const AddArgs& a) {
  is_signed ? add_block<kRows, kColumns, true>(a) : add_block<kRows, kColumns, false>(a);
}

constexpr int kWide = kLanes > 8 ? 4 : 3;  // rows of the largest block: 16 sums in 32 registers, 12 in 16

inline void add_any(int kind, bool is_signed, const AddArgs& a) {
  switch (kind) {
    case 0: return add_kind<kWide, 4>(is_signed, a);
    case 1: return add_kind<2, 4>(is_signed, a);
    case 2: return add_kind<1, 8>(is_signed, a);
    case 3: return add_kind<1, 4>(is_signed, a);
    case 4: return add_kind<2, 2>(is_signed, a);
    default: return add_kind<1, 1>(is_signed, a);
  }
}

inline void dot_any(int kind, const DotArgs& a) {
  switch (kind) {
    case 0: return dot_block<kWide, 4>(a);
    case 1: return dot_block<2, 4>(a);
    case 2: return dot_block<1, 8>(a);
    case 3: return dot_block<1, 4>(a);
    case 4: return dot_block<2, 2>(a);
    default: return dot_block<1, 1>(a);
  }
}

inline const SparseLoops kSparseLoops = {kLanes,      {{kWide, 4}, {2, 4}, {1, 8}, {1, 4}, {2, 2}, {1, 1}},
                                         build_lists, pack_tile,
                                         add_any,     dot_any,
                                         write_block, turn_matrix};

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
