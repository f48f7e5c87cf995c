// lanes_avx2.h: sixteen floats, two rows of a map, in two AVX2 registers.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kGroup = 1;
constexpr int kTileRows = 6, kTileVectors = 1;

struct V {
  __m256 a, b;
};

inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void stream(float* p, V x) {
  _mm256_stream_ps(p, x.a);
  _mm256_stream_ps(p + 8, x.b);
}
inline void settle() { _mm_sfence(); }
inline V all(float a) {
  const __m256 x = _mm256_set1_ps(a);
  return {x, x};
}
inline V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V fma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline V rectify(V x) {
  const __m256 none = _mm256_setzero_ps();
  return {_mm256_max_ps(none, x.a), _mm256_max_ps(none, x.b)};
}
inline V where_positive(V x, V y) {
  const __m256 none = _mm256_setzero_ps();
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, none, _CMP_NLE_UQ), y.a),
          _mm256_and_ps(_mm256_cmp_ps(x.b, none, _CMP_NLE_UQ), y.b)};
}
inline __m256 left_of(__m256 x) {
  const __m256i at = _mm256_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6);
  return _mm256_blend_ps(_mm256_setzero_ps(), _mm256_permutevar8x32_ps(x, at), 0xfe);
}
inline __m256 right_of(__m256 x) {
  const __m256i at = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 7);
  return _mm256_blend_ps(_mm256_setzero_ps(), _mm256_permutevar8x32_ps(x, at), 0x7f);
}
inline V from_left(V x) { return {left_of(x.a), left_of(x.b)}; }
inline V from_right(V x) { return {right_of(x.a), right_of(x.b)}; }
inline V between(V x, V y) { return {x.b, y.a}; }
inline float sum8(__m256 s) {
  __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
inline float sum(V x) { return sum8(_mm256_add_ps(x.a, x.b)); }
inline void fetch(const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

inline void turn8(const float* from, long from_row, float* to, long to_row) {
  __m256 r[8], s[8];
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * from_row);
  _Pragma("GCC unroll 4") for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

inline void turn(const float* from, long from_row, float* to, long to_row) {
  for (int k = 0; k < 16; k += 8) {
    for (int c = 0; c < 16; c += 8) turn8(from + c * from_row + k, from_row, to + k * to_row + c, to_row);
  }
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
