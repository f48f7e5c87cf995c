// sparse_loops.h: the loops over lists of kept weights. No guard: included once an instruction set, with HN_LANES, the
// namespace of its vectors, and HN_LANES_TARGET.

#include "lane_finish.h"
#include "pixel_loads.h"

namespace hiddennet::runtime {
namespace HN_LANES {

// Entries [entry, end) added to (kSign: 1; -1: subtracted from) the sums of rows [kFrom, kTo). Blocks of few sums have
// several sets of them, as an addition takes its time.
template <int kRows, int kColumns, int kSets, int kSign, int kFrom = 0, int kTo = kRows>
HN_LANES_TARGET HN_INLINE void walk(const BlockArgs& a, const uint16_t* entry, const uint16_t* const end,
                                    const float* value, V (&s)[kSets][kRows][kColumns]) {
  const int64_t row = a.row;
  const auto one = [&](int set) HN_LANES_TARGET {
    const float* at = a.tile + size_t(entry[set]) * 2;
    if (kFrom > 0) at += kFrom * row;
    const V w = kSign != 0 ? V{} : spread(value[set]);
    _Pragma("GCC unroll 16") for (int i = kFrom; i < kTo; ++i, at = opaque(at + row)) {
      _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
        const V x = load(at + j * kLanes);
        V& sum = s[set][i][j];
        sum = kSign == 0 ? add_product(w, x, sum) : (kSign > 0 ? add(sum, x) : subtract(sum, x));
      }
    }
  };
  const auto pass = [&](int n) {
    entry += n;
    if (kSign == 0) value += n;
  };
  for (; kSets > 1 && end - entry >= kSets; pass(kSets)) {
    _Pragma("GCC unroll 8") for (int set = 0; set < kSets; ++set) one(set);
  }
  for (; entry != end; pass(1)) one(0);
}

// One sign's entries; where the block lies at the map's edge, without the rows of which the taps see only padding.
template <int kRows, int kColumns, int kSets, int kSign>
HN_LANES_TARGET HN_INLINE void walk_edges(const BlockArgs& a, const uint16_t* entry, const uint16_t* end, uint16_t top,
                                          uint16_t bottom, V (&s)[kSets][kRows][kColumns]) {
  if constexpr (kSets == 1 && kRows > 1) {
    if (a.at_top && top > 0) {
      walk<kRows, kColumns, kSets, kSign, 1, kRows>(a, entry, entry + top, nullptr, s);
      entry += top;
    }
    if (a.at_bottom && bottom > 0) {
      walk<kRows, kColumns, kSets, kSign, 0, kRows - 1>(a, end - bottom, end, nullptr, s);
      end -= bottom;
    }
  }
  walk<kRows, kColumns, kSets, kSign>(a, entry, end, nullptr, s);
}

// The sums of a block stay in registers while an output's list is walked. A chunk's are made by themselves, then added:
// that keeps the error down.
template <int kRows, int kColumns, bool kIsSigned>
HN_LANES_TARGET inline void add_block(const BlockArgs& a) {
  constexpr int kSets = kRows * kColumns > 4 ? 1 : 8 / (kRows * kColumns);
  constexpr int32_t kAhead = 2;  // outputs whose lines are asked for before they are written
  const int32_t each = a.next == nullptr ? 0 : (a.next_channels * a.next_there + a.outs - 1) / a.outs;
  const float* next = a.next;
  int32_t asked = 0;
  for (int32_t o = 0; o < a.outs; ++o) {
    for (int32_t k = 0; k < each; ++k) {  // a few beyond the last channel do no harm
      __builtin_prefetch(next + a.next_from[asked], 0, 2);
      if (++asked < a.next_there) continue;
      asked = 0;
      next += a.next_channel;
    }
    if (a.last && o + kAhead < a.outs) {
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
        const int64_t to = (o + kAhead) * a.out_stride + i * a.out_row;
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
          __builtin_prefetch(a.y + to + j * a.out_column, 1, 3);
          if (a.residual != nullptr) __builtin_prefetch(a.residual + to + j * a.out_column, 0, 3);
        }
      }
    }
    const ListHead head = a.heads[o];
    V sets[kSets][kRows][kColumns];
    _Pragma("GCC unroll 8") for (int set = 0; set < kSets; ++set) {
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) { sets[set][i][j] = spread(0.0f); }
      }
    }
    const uint16_t *const entry = a.offsets + head.start, *const second = entry + head.first;
    if (kIsSigned) {
      walk_edges<kRows, kColumns, kSets, 1>(a, entry, second, head.first_top, head.first_bottom, sets);
      walk_edges<kRows, kColumns, kSets, -1>(a, second, second + head.second, head.second_top, head.second_bottom,
                                             sets);
    } else {
      walk<kRows, kColumns, kSets, 0>(a, entry, second, a.values + head.start, sets);
    }
    V(&s)[kRows][kColumns] = sets[0];
    _Pragma("GCC unroll 8") for (int set = 1; set < kSets; ++set) {
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) s[i][j] = add(s[i][j], sets[set][i][j]);
      }
    }
    float* const sums = a.sums + int64_t(o) * kRows * kColumns * kLanes;
    if (!a.first) {
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
          s[i][j] = add(load(sums + (i * kColumns + j) * kLanes), s[i][j]);
        }
      }
    }
    if (!a.last) {
      _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
        _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) store(sums + (i * kColumns + j) * kLanes, s[i][j]);
      }
      continue;
    }
    const V scale = spread(a.scale[o]), bias = spread(a.bias[o]);
    const int64_t out = o * a.out_stride;
    _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
      _Pragma("GCC unroll 16") for (int j = 0; j < kColumns; ++j) {
        const int64_t to = out + i * a.out_row + j * a.out_column;
        V v = add_product(s[i][j], scale, bias);
        if (a.residual != nullptr) v = add(v, load(a.residual + to));
        if (a.activation != Activation::none) v = activated(a.activation, a.low, a.high, v);
        store(a.y + to, v);
      }
    }
  }
}

// By value: what is stored could be what `a` points to, else.
HN_LANES_TARGET inline void copy_tile(const CopyArgs& args) {
  const CopyArgs a = args;
  const int32_t zeros = a.slots - a.turned;
  const float* from = a.x;
  float* to = a.tile;
  for (int32_t c = 0; c < a.channels; ++c, from += a.channel, to += int64_t(a.slots) * kLanes) {
    for (int32_t i = 0; i < a.there; ++i) store(to + a.to[i], load(from + a.from[i]));
    for (int32_t i = a.there; i < zeros; ++i) store(to + a.to[i], spread(0.0f));
    for (int32_t i = 0; i < a.turned; ++i) {
      store(to + a.turned_to[i], load_lanes(from + a.turned_from[i], a.lanes + a.turns[i]));
    }
  }
}

HN_LANES_TARGET inline void copy_pixels(const PixelArgs& a) {
  constexpr uint32_t kAll = uint32_t((uint64_t(1) << kLanes) - 1);
  float* to = a.tile;
  for (int32_t c = 0; c < a.channels; ++c) {
    const float* const x = a.x + c * a.channel;
    if (a.chosen == nullptr) {
      for (int32_t i = 0; i < a.slots; ++i, to += kLanes) store(to, load_places(x, a.from + int64_t(i) * kLanes));
      continue;
    }
    for (int32_t i = 0; i < a.slots; ++i, to += kLanes) {
      const float* const from = x + a.from[i];
      store(to, a.chosen[i] == kAll ? load(from) : load_chosen(from, a.chosen[i]));
    }
  }
}

constexpr int kMostSums = kLanes > 8 ? 28 : 14;

template <int kRows, int kColumns>
inline void add_kind(bool is_signed, const BlockArgs& a) {
  if constexpr (kRows * kColumns <= kMostSums) {
    is_signed ? add_block<kRows, kColumns, true>(a) : add_block<kRows, kColumns, false>(a);
  }
}

template <int kRows>
inline void add_rows(int32_t columns, bool is_signed, const BlockArgs& a) {
  switch (columns) {
    case 1: return add_kind<kRows, 1>(is_signed, a);
    case 2: return add_kind<kRows, 2>(is_signed, a);
    case 4: return add_kind<kRows, 4>(is_signed, a);
    default: return add_kind<kRows, 7>(is_signed, a);
  }
}

inline void add_any(int32_t rows, int32_t columns, bool is_signed, const BlockArgs& a) {
  switch (rows) {
    case 1: return add_rows<1>(columns, is_signed, a);
    case 2: return add_rows<2>(columns, is_signed, a);
    case 3: return add_rows<3>(columns, is_signed, a);
    default: return add_rows<4>(columns, is_signed, a);
  }
}

inline const SparseLoops kSparseLoops = {kLanes, kMostSums, copy_tile, copy_pixels, add_any};

}  // namespace HN_LANES
}  // namespace hiddennet::runtime
