// redrawn_weight_cpu.cpp: weights by their redraw numbers on a CPU: a quad is drawn once for each number it carries.
#include "../../base/parallel.h"
#include "../../base/picks.h"
#include "redrawn_weight.h"

namespace hn {
namespace cpu {
namespace {

constexpr int32_t kChunk = kPickRoom;  // elements: each may need a draw of its own

// Picks of one quad whose first `live` elements exist.
void pick_by_number(uint32_t quad, const uint32_t (&number)[4], int32_t live, Picks* picks) {
  uint32_t left = (1u << live) - 1u;
  while (left != 0) {
    const uint32_t redraw = number[__builtin_ctz(left)];
    uint32_t mask = 0;
    for (uint32_t q = 0; q < 4; ++q) mask |= uint32_t(number[q] == redraw) << q;
    picks->quad[picks->count] = quad;
    picks->redraw[picks->count] = redraw;
    picks->mask[picks->count++] = mask & left;
    left &= ~mask;
  }
}

void redraw_chunk(const RedrawnWeightParams& p, int32_t first, Picks* picks) {
  const int32_t end = std::min(first + kChunk, p.layout.n);
  picks->count = 0;
  for (int32_t i = first; i < end; i += 4) {
    const int32_t live = std::min(4, end - i);
    uint32_t number[4] = {};
    for (int32_t q = 0; q < live; ++q) number[q] = uint32_t(int32_t(p.redraws[p.layout.physical(i + q)]));
    pick_by_number(uint32_t(i) / 4, number, live, picks);
  }
  draw_picks(p.draw, p.kind, p.scale, picks);
  for (int32_t k = 0; k < picks->count; ++k) {
    for (uint32_t q = 0; q < 4; ++q) {
      const int32_t i = int32_t(4 * picks->quad[k] + q);
      if (picks->mask[k] >> q & 1u) p.out[p.layout.physical(i)] = picks->value[4 * uint32_t(k) + q];
    }
  }
}

}  // namespace

void redrawn_weight(const RedrawnWeightParams& p) {
  parallel_for(0, (int64_t(p.layout.n) + kChunk - 1) / kChunk, kParallelGrain / 4 / kChunk,
               [&](int64_t begin, int64_t end) {
                 Picks picks;
                 for (int64_t c = begin; c < end; ++c) redraw_chunk(p, int32_t(c * kChunk), &picks);
               });
}

}  // namespace cpu
}  // namespace hn
