// dense_loops.h: a tile of sums, and the copies into panels. No guard: included once an instruction set, with HN_LANES, the
// namespace of its vectors, HN_LANES_TARGET, and HN_TILE_ROWS, the rows of a tile of two vectors that registers hold.

namespace hn {
namespace cpu {
namespace HN_LANES {

// A step adds the products of `kRows` gradients and two vectors of inputs. kSegment steps are added up by themselves, which
// keeps the error near the square root of a plain sum's.
template <int kRows>
HN_LANES_TARGET inline void dense_tile(const DenseTileArgs& a) {
  bool fresh = a.fresh;
  int64_t run = 0, done = 0;
  do {
    V s[kRows][2];
    _Pragma("GCC unroll 16") for (int r = 0; r < kRows; ++r) s[r][0] = s[r][1] = spread(0.0f);
    for (int64_t room = kSegment; room > 0 && run < a.n_runs;) {
      const Run& at = a.runs[run];
      const float* x = a.x + (at.x + done) * 2 * kLanes;
      const float* dy = a.dy + (at.dy + done) * kRows;
      const int64_t left = at.length - done, steps = left < room ? left : room;
      for (int64_t n = steps; n > 0; --n, x += 2 * kLanes, dy += kRows) {
        const V x0 = load(x), x1 = load(x + kLanes);
        _Pragma("GCC unroll 16") for (int r = 0; r < kRows; ++r) {
          const V g = spread(dy[r]);
          s[r][0] = add_product(g, x0, s[r][0]);
          s[r][1] = add_product(g, x1, s[r][1]);
        }
      }
      room -= steps;
      done = steps == left ? 0 : done + steps;
      run += steps == left;
    }
    float* sums = a.sums;
    _Pragma("GCC unroll 16") for (int r = 0; r < kRows; ++r, sums += 2 * kLanes) {
      store(sums, fresh ? s[r][0] : add(load(sums), s[r][0]));
      store(sums + kLanes, fresh ? s[r][1] : add(load(sums + kLanes), s[r][1]));
    }
    fresh = false;
  } while (run < a.n_runs);
}

template <int kRows = HN_TILE_ROWS>
inline void dense_tile_of(int32_t rows, const DenseTileArgs& a) {
  if (rows == kRows) return dense_tile<kRows>(a);
  if constexpr (kRows > 1) dense_tile_of<kRows - 1>(rows, a);
}

HN_LANES_TARGET inline void copy_panels(const CopyArgs& a) {
  for (int32_t n = 0; n < a.images; ++n) {
    const float* const from = a.from + n * a.image;
    float* to = a.to + int64_t(n) * a.width;
    for (int32_t c = 0; c < a.channels; c += a.width, to += a.panel) {
      for (int32_t i = 0; i < a.width; i += kLanes) {
        const int32_t left = a.channels - c - i;
        const V v = left >= kLanes ? load(from + c + i) : (left > 0 ? load_part(from + c + i, left) : spread(0.0f));
        if (a.width - i >= kLanes) {
          store(to + i, v);
        } else {
          store_part(to + i, a.width - i, v);
        }
      }
    }
  }
}

inline const DenseLoops kDenseLoops = {2 * kLanes, HN_TILE_ROWS, dense_tile_of<HN_TILE_ROWS>, copy_panels};

}  // namespace HN_LANES
}  // namespace cpu
}  // namespace hn
