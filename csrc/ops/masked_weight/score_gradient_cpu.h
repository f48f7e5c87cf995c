// score_gradient_cpu.h: dL/dscore of a block from that of the effective weight, in a buffer or in memory: for the backward
// and for the optimiser's step, which agree to the bit.
#pragma once
#include <vector>

#include "../../base/blocks.h"
#include "../../base/dtype.h"

namespace hn {
namespace cpu {

// grad * weight * sign(score), with sign(0) = 0 and sign(NaN) = 0.
HN_INLINE void signed_product_body(const float* grad, const float* weights, const float* scores, int32_t n,
                                   float* out) {
  for (int32_t e = 0; e < n; ++e) {
    const float s = scores[e], p = grad[e] * weights[e];
    out[e] = p * (s > 0.0f ? 1.0f : (s < 0.0f ? -1.0f : 0.0f));
  }
}

HN_INLINE void product_body(const float* a, const float* b, int32_t n, float* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = a[e] * b[e];
}

HN_INLINE void select_body(const float* weights, const uint32_t* keep, int32_t n, float* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = bits_float(float_bits(weights[e]) & keep[e]);
}

HN_INLINE void widen_bfloat16_body(const uint16_t* from, int32_t n, float* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = from_bfloat16(from[e]);
}

HN_INLINE void widen_float16_body(const uint16_t* from, int32_t n, float* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = from_float16(from[e]);
}

HN_DISPATCH(signed_product, signed_product_body)
HN_DISPATCH(product, product_body)
HN_DISPATCH(select_float32, select_body)
HN_DISPATCH(widen_bfloat16, widen_bfloat16_body)
HN_DISPATCH(widen_float16, widen_float16_body)

// Elements [at, at + n) as floats: where they are, or in the buffer.
inline const float* read_gradient(const void* grad, Dtype dtype, int64_t at, int32_t n, float* buffer) {
  if (dtype == Dtype::kFloat32) return static_cast<const float*>(grad) + at;
  const uint16_t* from = static_cast<const uint16_t*>(grad) + at;
  if (dtype == Dtype::kBFloat16) {
    widen_bfloat16(from, n, buffer);
  } else {
    widen_float16(from, n, buffer);
  }
  return buffer;
}

// Room for n floats that lasts until the thread's next call.
inline float* thread_buffer(int32_t n) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < size_t(n)) buffer.resize(size_t(n));
  return buffer.data();
}

#if defined(HN_X86)

// grad * weight, times the sign of the score (0 of 0 and NaN) where magnitudes are ranked. n is a multiple of 8.
template <bool kSignOfScore, bool kHalf>
HN_TARGET_AVX2 void signed_gradient_avx2(const void* grad, const float* scores, const uint8_t* signs, uint32_t scale,
                                         int64_t n, float* out) {
  const __m256i bit = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  const __m256i top = _mm256_set1_epi32(int(0x80000000u)), constant = _mm256_set1_epi32(int(scale));
  for (int64_t i = 0; i < n; i += 8) {
    __m256 g;
    if (kHalf) {
      const uint16_t* from = static_cast<const uint16_t*>(grad) + i;
      const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      g = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    } else {
      g = _mm256_loadu_ps(static_cast<const float*>(grad) + i);
    }
    const __m256i sign = _mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32(signs[i / 8]), bit), top);
    __m256 product = _mm256_mul_ps(g, _mm256_castsi256_ps(_mm256_xor_si256(constant, sign)));
    if (kSignOfScore) {
      const __m256 s = _mm256_loadu_ps(scores + i);
      const __m256 some = _mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_NEQ_OQ);
      const __m256 unit = _mm256_or_ps(_mm256_and_ps(s, _mm256_castsi256_ps(top)), _mm256_set1_ps(1.0f));
      product = _mm256_mul_ps(product, _mm256_and_ps(unit, some));
    }
    _mm256_storeu_ps(out + i, product);
  }
}

using SignedGradient = void (*)(const void*, const float*, const uint8_t*, uint32_t, int64_t, float*);

// The pass over registers for signed constants under a ranking; null where there is none.
inline SignedGradient signed_gradient_of(RuleKind rule, Source source, Dtype dtype) {
  const bool magnitude = rule == RuleKind::kMagnitude, half = dtype == Dtype::kBFloat16;
  if (isa() != Isa::kAvx2 || source != Source::kSigns || dtype == Dtype::kFloat16) return nullptr;
  if (!magnitude && rule != RuleKind::kValue) return nullptr;
  if (magnitude) return half ? &signed_gradient_avx2<true, true> : &signed_gradient_avx2<true, false>;
  return half ? &signed_gradient_avx2<false, true> : &signed_gradient_avx2<false, false>;
}

#endif

// dL/dscore of positions [p0, p0 + n), a block of the reader's; `scores` points at p0, `grad` at position 0.
inline void score_gradient(BlockReader& reader, const Rule& rule, const WeightSource& source, const void* grad,
                           Dtype dtype, const float* scores, int32_t p0, int32_t n, float* out) {
#if defined(HN_X86)
  const SignedGradient run = n % 8 == 0 ? signed_gradient_of(rule.kind, source.kind, dtype) : nullptr;
  const uint8_t* signs = run == nullptr ? nullptr : reader.bytes_of(source.plane, p0);
  if (signs != nullptr) {
    const auto* from = static_cast<const char*>(grad) + int64_t(p0) * dtype_bytes(dtype);
    return run(from, scores, signs, float_bits(source.scale), n, out);
  }
#endif
  const float* g = read_gradient(grad, dtype, p0, n, thread_buffer(n));
  const float* weights = reader.weights(source, p0, n);
  if (rule.kind == RuleKind::kMagnitude) return signed_product(g, weights, scores, n, out);
  product(g, weights, n, out);
  if (rule.kind == RuleKind::kSampled || rule.kind == RuleKind::kExpectation) {
    for (int32_t e = 0; e < n; ++e) out[e] *= surrogate(rule, scores[e], 0);
  }
  if (has_flags(rule.kind)) select_float32(out, reader.bits(rule, p0, n), n, out);
}

}  // namespace cpu
}  // namespace hn
