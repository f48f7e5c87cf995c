// level_nodes.h: what one node does with one map, forward and backward, in registers.
namespace hn {
namespace cpu {
namespace HN_LANES {

struct Map {
  V v[4];  // rows 0 and 1, 2 and 3, ...
};

inline Map load_map(const float* p) { return {{load(p), load(p + 16), load(p + 32), load(p + 48)}}; }
inline void store_map(float* p, const Map& m) {
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) store(p + 16 * i, m.v[i]);
}
inline void stream_map(float* p, const Map& m) {
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) stream(p + 16 * i, m.v[i]);
}
inline Map zero_map() { return {{zero(), zero(), zero(), zero()}}; }
inline float sum_map(const Map& m) { return sum(add(add(m.v[0], m.v[1]), add(m.v[2], m.v[3]))); }

// The pairs of rows that lie between those of a map: rows -1 and 0, 1 and 2, ..., 7 and 8.
struct Between {
  V v[5];
};

inline Between between_rows(const Map& m) {
  Between b;
  b.v[0] = between(zero(), m.v[0]);
  _Pragma("GCC unroll 3") for (int i = 1; i < 4; ++i) b.v[i] = between(m.v[i - 1], m.v[i]);
  b.v[4] = between(m.v[3], zero());
  return b;
}

// The 3x3 filter over a map with zeros around it; backwards with the taps in reverse.
template <bool kReverse>
inline Map filter(const Map& r, const float* taps) {
  const Between b = between_rows(r);
  const auto tap = [&](int row, int column) { return all(taps[kReverse ? 8 - 3 * row - column : 3 * row + column]); };
  Map columns[3];
  _Pragma("GCC unroll 3") for (int c = 0; c < 3; ++c) {
    const V above = tap(0, c), own = tap(1, c), below = tap(2, c);
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
      columns[c].v[i] = fma(below, b.v[i + 1], fma(own, r.v[i], mul(above, b.v[i])));
    }
  }
  Map out;
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    out.v[i] = add(add(from_left(columns[0].v[i]), columns[1].v[i]), from_right(columns[2].v[i]));
  }
  return out;
}

// Adds to each tap's sum the products of the outputs' gradient and the pixels the tap sees.
inline void add_tap_gradients(const Map& gradient, const Map& r, V* taps) {
  Map side[3];
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    side[0].v[i] = from_left(r.v[i]);
    side[1].v[i] = r.v[i];
    side[2].v[i] = from_right(r.v[i]);
  }
  _Pragma("GCC unroll 3") for (int c = 0; c < 3; ++c) {
    const Between b = between_rows(side[c]);
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
      taps[c] = fma(gradient.v[i], b.v[i], taps[c]);
      taps[3 + c] = fma(gradient.v[i], side[c].v[i], taps[3 + c]);
      taps[6 + c] = fma(gradient.v[i], b.v[i + 1], taps[6 + c]);
    }
  }
}

// A map without its mean and of variance 1; the rate is what it was divided by, inverted.
inline Map normalise(const Map& m, float eps, float* rate) {
  const V mean = all(sum_map(m) * (1.0f / kMapPixels));
  Map c, square;
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    c.v[i] = sub(m.v[i], mean);
    square.v[i] = mul(c.v[i], c.v[i]);
  }
  *rate = 1.0f / __builtin_sqrtf(sum_map(square) * (1.0f / kMapPixels) + eps);
  const V by = all(*rate);
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) c.v[i] = mul(c.v[i], by);
  return c;
}

inline Map rectified(const Map& normal, float scale, float shift) {
  const V a = all(scale), b = all(shift);
  Map r;
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) r.v[i] = rectify(fma(a, normal.v[i], b));
  return r;
}

struct NodeSums {
  V taps[9];
  float scale, shift;
};

// From the gradient of what a node sends to that of what it received. Without a norm `rate` is 1, and so is scale.
template <bool kNorm>
inline Map node_backward(const Map& gradient, const Map& normal, float rate, float scale, float shift,
                         const float* taps, NodeSums& sums) {
  const Map r = rectified(normal, scale, shift);
  add_tap_gradients(gradient, r, sums.taps);
  Map d = filter<true>(gradient, taps);
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) d.v[i] = where_positive(r.v[i], d.v[i]);
  if (!kNorm) return d;
  Map product;
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) product.v[i] = mul(d.v[i], normal.v[i]);
  const float shifts = sum_map(d), scales = sum_map(product);
  sums.shift += shifts;
  sums.scale += scales;
  const V mean = all(shifts * (-1.0f / kMapPixels)), slope = all(scales * (-1.0f / kMapPixels));
  const V by = all(scale * rate);
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) { d.v[i] = mul(by, fma(normal.v[i], slope, add(d.v[i], mean))); }
  return d;
}

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
