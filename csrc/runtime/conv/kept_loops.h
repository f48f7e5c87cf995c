// kept_loops.h: comparisons with zero as bits. No guard: included once an instruction set, with HN_LANES, the namespace of
// its vectors, and HN_LANES_TARGET.

namespace hiddennet::runtime {
namespace HN_LANES {

using namespace hn::cpu::HN_LANES;

// Whole words alone.
HN_LANES_TARGET inline void find_kept(const float* weights, int64_t words, uint64_t* kept, uint64_t* minus) {
  for (int64_t w = 0; w < words; ++w, weights += 64) {
    uint64_t some = 0, below = 0;
    _Pragma("GCC unroll 16") for (int i = 0; i < 64; i += kLanes) {
      const V v = load(weights + i);
      some |= uint64_t(not_zero(v)) << i;
      below |= uint64_t(below_zero(v)) << i;
    }
    kept[w] = some;
    minus[w] = below;
  }
}

HN_LANES_TARGET inline std::size_t pick_all(const uint64_t* bits, const uint64_t* without, int64_t words,
                                            const uint16_t* from, uint16_t* to) {
  uint16_t* const start = to;
  for (int64_t w = 0; w < words; ++w, from += 64) to = pick(bits[w] & ~without[w], from, to);
  return std::size_t(to - start);
}

inline constexpr KeptLoops kKeptLoops = {find_kept, pick_all};

}  // namespace HN_LANES
}  // namespace hiddennet::runtime
