// signed_cpu.h: the commonest layers in one pass over registers: signed constants under a ranking.
//
// A block is a run of elements whose sign bits, and flags, lie as they do in memory: any multiple of 8 where memory is in
// the planes' order; in channels-last memory a 3x3 filter, whose bits are brought into order first.
#pragma once
#include <vector>

#include "../../base/bit_order.h"
#include "../../base/blocks.h"
#include "../../base/parallel.h"
#include "masked_weight.h"
#include "score_gradient_cpu.h"

namespace hn {
namespace cpu {

#if defined(HN_X86)

// Of eight scores and their bits: +-scale where the score is in, else 0. `flags` is read where kFlags says so; bit e of
// `tied` is set where score e equals the threshold.
template <Order kOrder, bool kFlags>
HN_TARGET_AVX2 HN_INLINE __m256i signed_kept(const float* scores, uint32_t signs, uint32_t flags, __m256i scale,
                                             __m256i limit, uint32_t* tied) {
  const __m256i bit = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  const __m256i top = _mm256_set1_epi32(int(0x80000000u));
  const __m256i key = signed_keys<kOrder>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores)));
  const __m256i sign = _mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32(int(signs)), bit), top);
  __m256i weight = _mm256_xor_si256(scale, sign);
  if (kFlags) weight = _mm256_and_si256(weight, bit_lanes(uint8_t(flags)));
  *tied = uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(limit, key))));
  return _mm256_andnot_si256(_mm256_cmpgt_epi32(limit, key), weight);
}

// A block of a layer's weights. For 16-bit results `scale` has the constant's bits in its upper half.
struct SignedBlock {
  const float* scores;
  const uint8_t *signs, *flags;
  uint32_t scale;
  Selection selection;
  const Layout* layout;
  int64_t first, n;  // a position, and a multiple of 8
  void* out;
};

// Prunes the tied ones among eight elements from the block's i-th on that come before the selection's cut.
template <class T>
void prune_tied(const SignedBlock& b, int64_t i, uint32_t tied) {
  for (; tied != 0; tied &= tied - 1) {
    const int64_t e = i + __builtin_ctz(tied);
    if (b.layout->logical(int32_t(b.first + e)) < b.selection.cut) static_cast<T*>(b.out)[e] = 0;
  }
}

template <Order kOrder, bool kFlags, bool kHalf>
HN_TARGET_AVX2 void signed_selection_avx2(const SignedBlock& b) {
  const __m256i limit = _mm256_set1_epi32(int((b.selection.threshold ^ 0x80000000u)));
  const __m256i constant = _mm256_set1_epi32(int(b.scale));
  const bool ties = b.selection.cut != 0;
  const auto* flags = kFlags ? b.flags : b.signs;
  uint32_t tied[2];
  int64_t i = 0;
  if (kHalf) {
    uint16_t* out = static_cast<uint16_t*>(b.out);
    for (; i + 16 <= b.n; i += 16) {
      const int64_t at = i / 8;
      const __m256i low = signed_kept<kOrder, kFlags>(b.scores + i, b.signs[at], flags[at], constant, limit, &tied[0]);
      const __m256i high =
          signed_kept<kOrder, kFlags>(b.scores + i + 8, b.signs[at + 1], flags[at + 1], constant, limit, &tied[1]);
      const __m256i both = _mm256_packus_epi32(_mm256_srli_epi32(low, 16), _mm256_srli_epi32(high, 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_permute4x64_epi64(both, 0xd8));
      if (ties && (tied[0] | tied[1]) != 0) prune_tied<uint16_t>(b, i, tied[0] | tied[1] << 8);
    }
  }
  for (; i < b.n; i += 8) {
    const __m256i one =
        signed_kept<kOrder, kFlags>(b.scores + i, b.signs[i / 8], flags[i / 8], constant, limit, &tied[0]);
    if (kHalf) {
      const __m256i halves = _mm256_srli_epi32(one, 16);
      const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0xd8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<uint16_t*>(b.out) + i), _mm256_castsi256_si128(packed));
      if (ties && tied[0] != 0) prune_tied<uint16_t>(b, i, tied[0]);
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<float*>(b.out) + i), one);
      if (ties && tied[0] != 0) prune_tied<float>(b, i, tied[0]);
    }
  }
}

// f(first position, count, signs, flags) over blocks whose bits are in memory's order; flags may be null. The last few
// elements that are no multiple of 8 are left; returns where they begin.
template <class F>
int32_t for_each_signed_block(const Layout& layout, const uint8_t* signs, const uint8_t* flags, const F& f) {
  if (!reorders(layout)) {
    const int64_t groups = layout.n / 8;
    parallel_for(0, groups, kParallelGrain / 8, [&](int64_t begin, int64_t end) {
      f(begin * 8, (end - begin) * 8, signs + begin, flags == nullptr ? nullptr : flags + begin);
    });
    return int32_t(groups * 8);
  }
  const int64_t size = layout.per_filter, bytes = size / 8, grain = std::max<int64_t>(1, kParallelGrain / size);
  parallel_for(0, layout.n / size, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> ordered(size_t(2 * bytes));
    for (int64_t filter = begin; filter < end; ++filter) {
      reorder_bytes(signs + filter * bytes, layout.channels, ordered.data());
      if (flags != nullptr) reorder_bytes(flags + filter * bytes, layout.channels, ordered.data() + bytes);
      f(filter * size, size, ordered.data(), flags == nullptr ? nullptr : ordered.data() + bytes);
    }
  });
  return layout.n;
}

inline bool ordered_bytes(const Layout& layout) {
  return !reorders(layout) || reorders_bytes(layout.channels, layout.taps);
}

// Writes the layer if it is of that kind, and says whether it did.
inline bool signed_selection(const MaskedWeightParams& p) {
  const bool rounded = p.rule.kind == RuleKind::kRounded && p.rule.step == nullptr;
  const bool ranked = p.rule.kind == RuleKind::kMagnitude || p.rule.kind == RuleKind::kValue || rounded;
  if (isa() != Isa::kAvx2 || !ranked || p.source.kind != Source::kSigns || p.dtype == Dtype::kFloat16) return false;
  if (!ordered_bytes(p.layout)) return false;
  const bool half = p.dtype == Dtype::kBFloat16;
  const uint32_t scale = half ? uint32_t(bfloat16_bits(p.source.scale)) << 16 : float_bits(p.source.scale);
  using Run = void (*)(const SignedBlock&);
  const Run by_value[] = {&signed_selection_avx2<Order::kValue, false, false>,
                          &signed_selection_avx2<Order::kValue, false, true>};
  const Run by_magnitude[] = {&signed_selection_avx2<Order::kMagnitude, false, false>,
                              &signed_selection_avx2<Order::kMagnitude, false, true>};
  const Run flagged[] = {&signed_selection_avx2<Order::kValue, true, false>,
                         &signed_selection_avx2<Order::kValue, true, true>};
  const Run run = (rounded ? flagged : p.rule.kind == RuleKind::kMagnitude ? by_magnitude : by_value)[half];
  const int32_t rest =
      for_each_signed_block(p.layout, p.source.plane, rounded ? p.rule.bits : nullptr,
                            [&](int64_t first, int64_t count, const uint8_t* signs, const uint8_t* flags) {
                              run({p.scores + first, signs, flags, scale, *p.rule.selection, &p.layout, first, count,
                                   static_cast<char*>(p.out) + first * dtype_bytes(p.dtype)});
                            });
  for (int32_t i = rest; i < p.layout.n; ++i) {
    store_float(p.out, p.dtype, i, kept(p.rule, p.scores[i], i) ? weight_at(p.source, i, i) : 0.0f);
  }
  return true;
}

// Writes the scores' gradient if the layer is of that kind, and says whether it did.
inline bool signed_gradient(const MaskedWeightBackwardParams& p) {
  const SignedGradient run = signed_gradient_of(p.rule.kind, p.source.kind, p.grad_dtype);
  if (run == nullptr || !ordered_bytes(p.layout) || p.grad_scores == nullptr || p.grad_weight != nullptr) return false;
  const bool magnitude = p.rule.kind == RuleKind::kMagnitude;
  const int32_t rest = for_each_signed_block(
      p.layout, p.source.plane, nullptr, [&](int64_t first, int64_t count, const uint8_t* signs, const uint8_t*) {
        run(static_cast<const char*>(p.grad) + first * dtype_bytes(p.grad_dtype), p.scores + first, signs,
            float_bits(p.source.scale), count, p.grad_scores + first);
      });
  for (int32_t i = rest; i < p.layout.n; ++i) {
    const float product = mul_rn(load_as_float(p.grad, p.grad_dtype, i), weight_at(p.source, i, i));
    const float s = p.scores[i], unit = s > 0.0f ? 1.0f : (s < 0.0f ? -1.0f : 0.0f);
    p.grad_scores[i] = magnitude ? mul_rn(product, unit) : product;
  }
  return true;
}

#else

inline bool signed_selection(const MaskedWeightParams&) { return false; }
inline bool signed_gradient(const MaskedWeightBackwardParams&) { return false; }

#endif

}  // namespace cpu
}  // namespace hn
