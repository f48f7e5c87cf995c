// relu_pool_cpu.cpp: a row of outputs at a time, in loops over channels.
#include <algorithm>

#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "relu_pool.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of the input a piece at least

// Floats as their bits: U is uint32_t or uint16_t.
template <class U>
constexpr U kSign = U(U(1) << (8 * sizeof(U) - 1));
template <class U>
constexpr U kInfinity = sizeof(U) == 4 ? U(0x7f800000u) : U(0x7f80u);

// Orders them as the ReLU does: 0 is what it takes away, the greatest value is a NaN of either sign.
template <class U>
HN_INLINE U rank(U bits) {
  const U size = U(bits & U(~kSign<U>));
  return size > kInfinity<U> ? U(~U(0)) : (bits & kSign<U>) != 0 ? U(0) : size;
}

// The greatest so far, and where it was.
template <class U>
struct Best {
  U rank, bits, place;
};

template <class U>
HN_INLINE Best<U> better(Best<U> a, U bits, U place) {
  const U r = rank(bits);
  const bool take = (r > a.rank) | (r == U(~U(0)));
  return {take ? r : a.rank, take ? bits : a.bits, take ? place : a.place};
}

// Two rows of two inputs a channel to one output: the first of the greatest, or the last NaN.
template <class U>
HN_INLINE void pool_body(const U* __restrict top, const U* __restrict bottom, int64_t channels, U* __restrict y,
                         uint8_t* __restrict places) {
  for (int64_t c = 0; c < channels; ++c) {
    Best<U> best{rank(top[c]), top[c], U(0)};
    best = better(best, top[channels + c], U(1));
    best = better(best, bottom[c], U(2));
    best = better(best, bottom[channels + c], U(3));
    y[c] = best.rank == 0 ? U(0) : best.bits;
    places[c] = uint8_t(best.rank == 0 ? U(kNowhere) : best.place);
  }
}
HN_DISPATCH_WIDE(pool, pool_body)

template <class U>
HN_INLINE void spread_body(const U* __restrict dy, const uint8_t* __restrict places, int64_t channels,
                           U* __restrict top, U* __restrict bottom) {
  for (int64_t c = 0; c < channels; ++c) {
    const U g = dy[c];
    const uint8_t place = places[c];
    top[c] = place == 0 ? g : U(0);
    top[channels + c] = place == 1 ? g : U(0);
    bottom[c] = place == 2 ? g : U(0);
    bottom[channels + c] = place == 3 ? g : U(0);
  }
}
HN_DISPATCH_WIDE(spread, spread_body)

// f(output row, the two input rows' beginnings) for every row of outputs.
template <class P, class F>
void for_rows(const P& p, const F& f) {
  const int64_t rows = p.height / 2, line = p.width * p.channels;
  parallel_for(0, p.images * rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, 2 * line)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) f(r, (r / rows * p.height + r % rows * 2) * line);
               });
}

template <class U>
void forward(const ReluPoolParams& p) {
  const int64_t c = p.channels, columns = p.width / 2;
  for_rows(p, [&](int64_t row, int64_t from) {
    const U *const top = static_cast<const U*>(p.x) + from, *const bottom = top + p.width * c;
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t at = (row * columns + j) * c;
      pool(top + 2 * j * c, bottom + 2 * j * c, c, static_cast<U*>(p.y) + at, p.places + at);
    }
  });
}

template <class U>
void backward(const ReluPoolBackwardParams& p) {
  const int64_t c = p.channels, columns = p.width / 2, line = p.width * c;
  for_rows(p, [&](int64_t row, int64_t from) {
    U *const top = static_cast<U*>(p.dx) + from, *const bottom = top + line;
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t at = (row * columns + j) * c;
      spread(static_cast<const U*>(p.dy) + at, p.places + at, c, top + 2 * j * c, bottom + 2 * j * c);
    }
    if (p.width % 2 != 0) {
      std::fill(top + line - c, top + line, U(0));
      std::fill(bottom + line - c, bottom + line, U(0));
    }
    if (p.height % 2 != 0 && (row + 1) % (p.height / 2) == 0) std::fill(bottom + line, bottom + 2 * line, U(0));
  });
}

}  // namespace

void relu_pool(const ReluPoolParams& p) { dtype_bytes(p.dtype) == 4 ? forward<uint32_t>(p) : forward<uint16_t>(p); }

void relu_pool_backward(const ReluPoolBackwardParams& p) {
  dtype_bytes(p.dtype) == 4 ? backward<uint32_t>(p) : backward<uint16_t>(p);
}

}  // namespace cpu
}  // namespace hn
