// bop_step_cpu.cpp: Bop's step on a CPU: one pass over memory, a block at a time over all layers.
//
// Sixteen bytes a weight move where nothing flips: eight weights are written back only if one of them did.

#include "../../base/blocks.h"
#include "../../base/segments.h"
#include "bop_step.h"

namespace hn {
namespace cpu {
namespace {

// keep: all ones or zeros an element, or null.
struct BopBlock {
  const float* grad;
  const uint32_t* keep;
  float* weights;
  float* average;
};

// Elements [begin, n); returns how many flipped.
template <bool kFresh, bool kFlags>
int64_t bop_scalar(const BopHyper& h, const BopBlock& b, int32_t begin, int32_t n) {
  int64_t flips = 0;
  for (int32_t e = begin; e < n; ++e) {
    if (kFlags && b.keep[e] == 0) continue;
    const float m = bop_averaged(h, kFresh, b.average[e], b.grad[e]);
    b.average[e] = m;
    if (!bop_flips(h, m, b.weights[e])) continue;
    b.weights[e] = negated(b.weights[e]);
    ++flips;
  }
  return flips;
}

#if defined(HN_X86)

// All ones where the signs are equal; NaN has none.
HN_TARGET_AVX2 inline __m256 same_sign(__m256 a, __m256 b) {
  const __m256 zero = _mm256_setzero_ps();
  const __m256 above = _mm256_and_ps(_mm256_cmp_ps(a, zero, _CMP_GT_OQ), _mm256_cmp_ps(b, zero, _CMP_GT_OQ));
  const __m256 below = _mm256_and_ps(_mm256_cmp_ps(a, zero, _CMP_LT_OQ), _mm256_cmp_ps(b, zero, _CMP_LT_OQ));
  const __m256 none = _mm256_and_ps(_mm256_cmp_ps(a, zero, _CMP_EQ_OQ), _mm256_cmp_ps(b, zero, _CMP_EQ_OQ));
  return _mm256_or_ps(_mm256_or_ps(above, below), none);
}

template <bool kFresh, bool kFlags>
HN_TARGET_AVX2 int64_t bop_avx2(const BopHyper& h, const BopBlock& b, int32_t n) {
  const __m256 kept = _mm256_set1_ps(h.keep), share = _mm256_set1_ps(h.share), bar = _mm256_set1_ps(h.threshold);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256i count = _mm256_setzero_si256();
  int32_t e = 0;
  for (; e + 8 <= n; e += 8) {
    const __m256 g = _mm256_loadu_ps(b.grad + e), p = _mm256_loadu_ps(b.weights + e);
    const __m256 old = kFresh && !kFlags ? g : _mm256_loadu_ps(b.average + e);
    const __m256 m = _mm256_add_ps(kFresh ? g : _mm256_mul_ps(kept, old), _mm256_mul_ps(share, g));
    __m256 flip = _mm256_and_ps(_mm256_cmp_ps(_mm256_andnot_ps(sign, m), bar, _CMP_GE_OQ), same_sign(m, p));
    if (kFlags) {
      const __m256 on = _mm256_loadu_ps(reinterpret_cast<const float*>(b.keep + e));
      flip = _mm256_and_ps(flip, on);
      _mm256_storeu_ps(b.average + e, _mm256_blendv_ps(old, m, on));
    } else {
      _mm256_storeu_ps(b.average + e, m);
    }
    if (_mm256_movemask_ps(flip) == 0) continue;
    _mm256_storeu_ps(b.weights + e, _mm256_xor_ps(p, _mm256_and_ps(flip, sign)));
    count = _mm256_sub_epi32(count, _mm256_castps_si256(flip));
  }
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), count);
  int64_t flips = bop_scalar<kFresh, kFlags>(h, b, e, n);
  for (const int32_t lane : lanes) flips += lane;
  return flips;
}

#endif

template <bool kFresh, bool kFlags>
int64_t bop_any(const BopHyper& h, const BopBlock& b, int32_t n) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return bop_avx2<kFresh, kFlags>(h, b, n);
#endif
  return bop_scalar<kFresh, kFlags>(h, b, 0, n);
}

int64_t bop_block(const BopHyper& h, const BopSegment& s, const uint32_t* keep, int32_t p0, int32_t n) {
  const BopBlock b{s.grad + p0, keep, s.weights + p0, s.average + p0};
  if (keep == nullptr) return s.fresh ? bop_any<true, false>(h, b, n) : bop_any<false, false>(h, b, n);
  return s.fresh ? bop_any<true, true>(h, b, n) : bop_any<false, true>(h, b, n);
}

// Without flags the order of the elements does not matter.
Layout walked(const BopSegment& s) { return s.flags == nullptr ? flat_layout(s.layout.n) : s.layout; }

}  // namespace

void bop_step(const BopStepParams& p) {
  const SegmentBlocks blocks(p.num_segments, [&](int32_t s) { return BlockReader(walked(p.segments[s])).blocks(); });
  for (int32_t s = 0; s < p.num_segments; ++s) *p.segments[s].flips = 0;
  parallel_for(0, blocks.total(), kParallelGrain / 2 / kBlock, [&](int64_t begin, int64_t end) {
    blocks.visit(begin, end, [&](int32_t at, int64_t b, int64_t stop) {
      const BopSegment& s = p.segments[at];
      BlockReader reader(walked(s));
      int64_t flips = 0;
      for (; b < stop; ++b) {
        const int32_t p0 = reader.begin(b), n = reader.size(b);
        const uint32_t* keep = s.flags == nullptr ? nullptr : reader.plane(s.flags, p0, n);
        flips += bop_block(p.hyper, s, keep, p0, n);
      }
      __atomic_fetch_add(s.flips, flips, __ATOMIC_RELAXED);
    });
  });
  for (int32_t s = 0; s < p.num_segments; ++s) *p.segments[s].total += *p.segments[s].flips;
}

}  // namespace cpu
}  // namespace hn
