// rerandomize_cpu.cpp: redraw unrevealed weights on a CPU, 1024 OIHW neighbours at a time.
//
// A chunk first becomes one bit an element (unrevealed, and picked by the decision stream). Signs are then blended as
// bytes; floats are drawn only for quads that hold a set bit.
#include <vector>

#include "../../base/key_avx2.h"
#include "../../base/philox_avx2.h"
#include "../../base/philox_avx512.h"
#include "../../base/picks.h"
#include "../../base/segments.h"
#include "rerandomize.h"

namespace hn {
namespace cpu {
namespace {

constexpr int32_t kChunk = 1024;
constexpr int32_t kWords = kChunk / 32;
static_assert(kChunk / 4 <= kPickRoom, "all quads of a chunk may be picked");
static_assert(kChunk == 128 * kLanes, "the signs of a chunk are one round of the generator");

// Scores of OIHW indices [first, first + n) as neighbours.
void gather_scores(const float* scores, const Layout& layout, int32_t first, int32_t n, float* out) {
  int32_t base = first / layout.per_filter * layout.per_filter;
  int32_t channel = (first - base) / layout.taps, tap = first - base - channel * layout.taps;
  for (int32_t e = 0; e < n; ++e) {
    out[e] = scores[base + tap * layout.channels + channel];
    if (++tap == layout.taps) {
      tap = 0;
      if (++channel == layout.channels) {
        channel = 0;
        base += layout.per_filter;
      }
    }
  }
}

// Bits of the scores that the selection does not reveal; n is a multiple of 32.
template <Order kOrder>
void unrevealed_scalar(const float* scores, const Selection& s, int32_t first, int32_t n, uint32_t* out) {
  for (int32_t w = 0; w < n / 32; ++w) {
    uint32_t bits = 0;
    for (int32_t e = 0; e < 32; ++e) {
      const int32_t at = 32 * w + e;
      bits |= uint32_t(!kept_by_selection(s.threshold, s.cut, key_of<kOrder>(scores[at]), first + at)) << e;
    }
    out[w] = bits;
  }
}

void words_below_scalar(const Draw& d, Stream stream, uint32_t first_block, uint32_t limit, int32_t words,
                        uint32_t* out) {
  for (int32_t w = 0; w < words; ++w) {
    PhiloxLanes p;
    philox_lanes(d, stream, first_block + uint32_t(w * kLanes), &p);
    uint32_t bits = 0;
    for (int e = 0; e < 32; ++e) bits |= uint32_t(p.word[e % 4][e / 4] < limit) << e;
    out[w] = bits;
  }
}

#if defined(HN_X86)

// Bytes of all ones or zeros, in order, from four registers of 32-bit ones.
HN_TARGET_AVX2 inline uint32_t movemask_32(const __m256i (&m)[4]) {
  const __m256i low = _mm256_packs_epi32(m[0], m[1]), high = _mm256_packs_epi32(m[2], m[3]);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return uint32_t(_mm256_movemask_epi8(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)));
}

template <Order kOrder>
HN_TARGET_AVX2 void unrevealed_avx2(const float* scores, const Selection& s, int32_t first, int32_t n, uint32_t* out) {
  const __m256i threshold = _mm256_set1_epi32(int(s.threshold ^ 0x80000000u));
  for (int32_t w = 0; w < n / 32; ++w) {
    const auto* from = reinterpret_cast<const __m256i*>(scores + 32 * w);
    __m256i key[4], m[4];
    for (int v = 0; v < 4; ++v) key[v] = signed_keys<kOrder>(_mm256_loadu_si256(from + v));
    for (int v = 0; v < 4; ++v) m[v] = _mm256_cmpgt_epi32(threshold, key[v]);
    out[w] = movemask_32(m);
    const int32_t pruned = std::min(s.cut - (first + 32 * w), 32);
    if (pruned <= 0) continue;
    for (int v = 0; v < 4; ++v) m[v] = _mm256_cmpeq_epi32(threshold, key[v]);
    out[w] |= movemask_32(m) & (pruned == 32 ? ~0u : (1u << pruned) - 1u);  // ties below the cut
  }
}

#endif

template <Order kOrder>
void unrevealed(const float* scores, const Selection& s, int32_t first, int32_t n, uint32_t* out) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return unrevealed_avx2<kOrder>(scores, s, first, n, out);
#endif
  unrevealed_scalar<kOrder>(scores, s, first, n, out);
}

void words_below(const Draw& d, Stream stream, uint32_t first_block, uint32_t limit, int32_t words, uint32_t* out) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return words_below_avx512(d, stream, first_block, limit, words, out);
  if (isa() == Isa::kAvx2) return words_below_avx2(d, stream, first_block, limit, words, out);
#endif
  words_below_scalar(d, stream, first_block, limit, words, out);
}

// Bits that are set take the drawn signs. A plane's last word may have fewer than four bytes.
HN_INLINE void blend_signs_body(const uint32_t* bits, const uint32_t* signs, int32_t n, uint8_t* plane) {
  uint32_t old[kWords] = {};
  const size_t bytes = size_t(n + 7) / 8;
  std::memcpy(old, plane, bytes);
  for (int32_t w = 0; w < kWords; ++w) old[w] ^= (old[w] ^ signs[w]) & bits[w];
  std::memcpy(plane, old, bytes);
}

// Blends whole quads of memory that is in OIHW order. A quad is read, then written: nothing in between may alias.
HN_INLINE void blend_floats_body(const Picks* p, uint32_t first_quad, float* to) {
  for (int32_t k = 0; k < p->count; ++k) {
    float* quad = to + 4 * (p->quad[k] - first_quad);
    uint32_t old[4], drawn[4];
    std::memcpy(old, quad, sizeof old);
    std::memcpy(drawn, p->value + 4 * k, sizeof drawn);
    for (uint32_t q = 0; q < 4; ++q) old[q] ^= (old[q] ^ drawn[q]) & (0u - (p->mask[k] >> q & 1u));
    std::memcpy(quad, old, sizeof old);
  }
}

// Sixteen bits for each bit of a mask.
constexpr uint64_t kWide[16] = {0x0000000000000000, 0x000000000000ffff, 0x00000000ffff0000, 0x00000000ffffffff,
                                0x0000ffff00000000, 0x0000ffff0000ffff, 0x0000ffffffff0000, 0x0000ffffffffffff,
                                0xffff000000000000, 0xffff00000000ffff, 0xffff0000ffff0000, 0xffff0000ffffffff,
                                0xffffffff00000000, 0xffffffff0000ffff, 0xffffffffffff0000, 0xffffffffffffffff};

HN_INLINE void blend_redraws_body(const Picks* p, uint32_t first_quad, uint32_t redraw, int16_t* to) {
  const uint64_t number = redraw * 0x0001000100010001u;
  for (int32_t k = 0; k < p->count; ++k) {
    int16_t* quad = to + 4 * (p->quad[k] - first_quad);
    uint64_t old;
    std::memcpy(&old, quad, sizeof old);
    old ^= (old ^ number) & kWide[p->mask[k]];
    std::memcpy(quad, &old, sizeof old);
  }
}

HN_DISPATCH(blend_signs, blend_signs_body)
HN_DISPATCH(blend_floats, blend_floats_body)
HN_DISPATCH(blend_redraws, blend_redraws_body)

// One chunk after another of one network; one a thread.
class Redrawer {
 public:
  explicit Redrawer(const RerandomizeParams& p) : p_(p) {
    std::fill(std::begin(picks_.redraw), std::end(picks_.redraw), p.redraw);
  }

  void chunk(const RedrawSegment& s, const Selection& row, int32_t first) {
    const int32_t n = std::min(kChunk, s.layout.n - first);
    flat_ = !s.layout.channels_last || s.layout.taps == 1 || s.layout.channels == 1;
    draw_ = {p_.key0, p_.key1, s.layer, p_.redraw};
    if (!choose(s, row, first, n)) return;
    if (s.plane != nullptr) redraw_signs(s.plane + first / 8, first, n);
    if (s.weights == nullptr && s.redraws == nullptr) return;
    pick_quads(bits_, (n + 31) / 32, uint32_t(first) / 4, &picks_);
    if (s.weights != nullptr) redraw_floats(s, first, n);
    if (s.redraws != nullptr) note_redraws(s, first, n);
  }

 private:
  // Sets bits_: what is replaced. Says whether anything is.
  bool choose(const RedrawSegment& s, const Selection& row, int32_t first, int32_t n) {
    const int32_t words = (n + 31) / 32;
    const float* scores = s.scores + first;
    if (!flat_ || n % 32 != 0) {
      std::fill(scores_ + n, scores_ + 32 * words, 0.0f);
      if (flat_) {
        std::copy(scores, scores + n, scores_);
      } else {
        gather_scores(s.scores, s.layout, first, n, scores_);
      }
      scores = scores_;
    }
    const auto find = p_.order == Order::kMagnitude ? &unrevealed<Order::kMagnitude> : &unrevealed<Order::kValue>;
    find(scores, row, first, 32 * words, bits_);
    if (n % 32 != 0) bits_[words - 1] &= (1u << (n % 32)) - 1u;
    uint32_t any = 0;
    if (p_.limit >> 32 == 0) {
      uint32_t picked[kWords + 2];  // room to round up to a multiple of three or four
      words_below(draw_, kRedrawStream, uint32_t(first) / 4, uint32_t(p_.limit), words, picked);
      for (int32_t w = 0; w < words; ++w) bits_[w] &= picked[w];
    }
    for (int32_t w = 0; w < words; ++w) any |= bits_[w];
    return any != 0;
  }

  void redraw_signs(uint8_t* plane, int32_t first, int32_t n) {
    uint32_t block[kLanes], redraw[kLanes], signs[kWords];
    for (int l = 0; l < kLanes; ++l) {
      block[l] = uint32_t(first) / 128 + uint32_t(l);
      redraw[l] = p_.redraw;
    }
    block_words(draw_, kSignStream, block, redraw, kLanes, signs);
    blend_signs(static_cast<const uint32_t*>(bits_), static_cast<const uint32_t*>(signs), n, plane);
  }

  void redraw_floats(const RedrawSegment& s, int32_t first, int32_t n) {
    draw_picks(draw_, s.kind, s.scale, &picks_);
    if (p_.blend) {
      for_each_element(s.layout, [&](int32_t at, uint32_t slot) {
        s.weights[at] = add_rn(mul_rn(p_.decay, s.weights[at]), mul_rn(p_.mix, picks_.value[slot]));
      });
    } else if (flat_ && n % 4 == 0) {
      blend_floats(&picks_, uint32_t(first) / 4, s.weights + first);
    } else {
      for_each_element(s.layout, [&](int32_t at, uint32_t slot) { s.weights[at] = picks_.value[slot]; });
    }
  }

  void note_redraws(const RedrawSegment& s, int32_t first, int32_t n) {
    if (flat_ && n % 4 == 0) {
      blend_redraws(&picks_, uint32_t(first) / 4, p_.redraw, s.redraws + first);
    } else {
      for_each_element(s.layout, [&](int32_t at, uint32_t) { s.redraws[at] = int16_t(p_.redraw); });
    }
  }

  // f(physical position, where its value is) of every picked element.
  template <class F>
  void for_each_element(const Layout& layout, const F& f) const {
    for (int32_t k = 0; k < picks_.count; ++k) {
      for (uint32_t q = 0; q < 4; ++q) {
        if (picks_.mask[k] >> q & 1u) f(layout.physical(int32_t(4 * picks_.quad[k] + q)), 4 * uint32_t(k) + q);
      }
    }
  }

  const RerandomizeParams& p_;
  bool flat_ = true;
  Draw draw_{};
  uint32_t bits_[kWords] = {};
  float scores_[kChunk];
  Picks picks_;
};

}  // namespace

void rerandomize(const RerandomizeParams& p) {
  const SegmentBlocks chunks(p.num_segments, [&](int32_t s) {
    return left_alone(p.segments[s], p) ? 0 : (int64_t(p.segments[s].layout.n) + kChunk - 1) / kChunk;
  });
  parallel_for(0, chunks.total(), kParallelGrain / 2 / kChunk, [&](int64_t begin, int64_t end) {
    Redrawer redrawer(p);
    chunks.visit(begin, end, [&](int32_t s, int64_t c, int64_t stop) {
      for (; c < stop; ++c) redrawer.chunk(p.segments[s], p.selection[s], int32_t(c * kChunk));
    });
  });
}

}  // namespace cpu
}  // namespace hn
