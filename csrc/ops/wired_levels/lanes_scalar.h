// lanes_scalar.h: sixteen floats, two rows of a map, in plain C++: the truth for the vector ones.
namespace hn {
namespace cpu {
namespace HN_LANES {

constexpr int kGroup = 1;                       // images that go through the levels together
constexpr int kTileRows = 4, kTileVectors = 1;  // of the weight's gradient, in registers

struct V {
  float v[16];
};

template <class F>
inline V each(F f) {
  V out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}

inline V load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline void store(float* p, const V& a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline void stream(float* p, const V& a) { store(p, a); }  // past the caches, to a 64-byte line
inline void settle() {}                                    // what was streamed is seen by other threads
inline V all(float a) {
  return each([=](int) { return a; });
}
inline V zero() { return all(0.0f); }
inline V add(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline V sub(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline V mul(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline V fma(const V& a, const V& b, const V& c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
// ReLU; NaN stays NaN.
inline V rectify(const V& a) {
  return each([&](int i) { return a.v[i] < 0.0f ? 0.0f : a.v[i]; });
}
// b where a is above 0 or NaN, else 0.
inline V where_positive(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] <= 0.0f ? 0.0f : b.v[i]; });
}
// Each pixel's left and right neighbour in its row of eight, 0 outside.
inline V from_left(const V& a) {
  return each([&](int i) { return i % 8 == 0 ? 0.0f : a.v[i - 1]; });
}
inline V from_right(const V& a) {
  return each([&](int i) { return i % 8 == 7 ? 0.0f : a.v[i + 1]; });
}
// The second row of a, the first of b.
inline V between(const V& a, const V& b) {
  return each([&](int i) { return i < 8 ? a.v[i + 8] : b.v[i - 8]; });
}
inline float sum(const V& a) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.v[i] + a.v[i + 8];
  for (int i = 0; i < 4; ++i) s[i] = s[i] + s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline void fetch(const float*) {}

// to[k * to_row + c] = from[c * from_row + k], for 16 k and 16 c.
inline void turn(const float* from, long from_row, float* to, long to_row) {
  for (int k = 0; k < 16; ++k) {
    for (int c = 0; c < 16; ++c) to[k * to_row + c] = from[c * from_row + k];
  }
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
