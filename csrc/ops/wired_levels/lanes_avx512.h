// lanes_avx512.h: sixteen floats, two rows of a map, in one AVX-512 register.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kGroup = 4;
constexpr int kTileRows = 12, kTileVectors = 2;

struct V {
  __m512 v;
};

inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x.v); }
inline void stream(float* p, V x) { _mm512_stream_ps(p, x.v); }
inline void settle() { _mm_sfence(); }
inline V all(float a) { return {_mm512_set1_ps(a)}; }
inline V zero() { return {_mm512_setzero_ps()}; }
inline V add(V x, V y) { return {_mm512_add_ps(x.v, y.v)}; }
inline V sub(V x, V y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline V mul(V x, V y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline V fma(V x, V y, V z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
inline V rectify(V x) { return {_mm512_max_ps(_mm512_setzero_ps(), x.v)}; }
inline V where_positive(V x, V y) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_NLE_UQ), y.v)};
}
inline V from_left(V x) {
  const __m512i at = _mm512_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6, 8, 8, 9, 10, 11, 12, 13, 14);
  return {_mm512_maskz_permutexvar_ps(0xfefe, at, x.v)};
}
inline V from_right(V x) {
  const __m512i at = _mm512_setr_epi32(1, 2, 3, 4, 5, 6, 7, 7, 9, 10, 11, 12, 13, 14, 15, 15);
  return {_mm512_maskz_permutexvar_ps(0x7f7f, at, x.v)};
}
inline V between(V x, V y) { return {_mm512_shuffle_f32x4(x.v, y.v, 0x4e)}; }
inline float sum(V x) {
  const __m256 s = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
inline void fetch(const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

inline void turn(const float* from, long from_row, float* to, long to_row) {
  __m512 r[16], s[16];
  _Pragma("GCC unroll 16") for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * from_row);
  _Pragma("GCC unroll 8") for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 16;
                               i += 4) {  // r[i + j]: columns j, j + 4, j + 8, j + 12 of rows i to i + 3
    r[i] = _mm512_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  _Pragma("GCC unroll 4") for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(r[j], r[j + 4], 0x88), b = _mm512_shuffle_f32x4(r[j], r[j + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0x88),
                 d = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0xdd);
    _mm512_storeu_ps(to + j * to_row, _mm512_shuffle_f32x4(a, c, 0x88));
    _mm512_storeu_ps(to + (j + 8) * to_row, _mm512_shuffle_f32x4(a, c, 0xdd));
    _mm512_storeu_ps(to + (j + 4) * to_row, _mm512_shuffle_f32x4(b, d, 0x88));
    _mm512_storeu_ps(to + (j + 12) * to_row, _mm512_shuffle_f32x4(b, d, 0xdd));
  }
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
