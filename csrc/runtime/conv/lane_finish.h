// lane_finish.h: activations of vectors. No guard: included once an instruction set, with HN_LANES, the namespace of its
// vectors, and HN_LANES_TARGET.

namespace hiddennet::runtime {
namespace HN_LANES {

using namespace hn::cpu::HN_LANES;
using hn::cpu::opaque;

HN_LANES_TARGET HN_INLINE V smaller(V a, V b) { return b < a ? b : a; }  // a where either is NaN
HN_LANES_TARGET HN_INLINE V larger(V a, V b) { return b > a ? b : a; }

// Out of line: it would stand once a sum in blocks of many.
HN_LANES_TARGET __attribute__((noinline)) inline V activated_each(Activation a, float low, float high, V x) {
  V v;
  for (int i = 0; i < kLanes; ++i) v[i] = activate(a, x[i], low, high);
  return v;
}

HN_LANES_TARGET HN_INLINE V activated(Activation a, float low, float high, V x) {
  if (a == Activation::none) return x;
  if (a == Activation::relu) return larger(x, spread(0.0f));
  if (a == Activation::clamp) return smaller(larger(x, spread(low)), spread(high));
  return activated_each(a, low, high, x);
}

}  // namespace HN_LANES
}  // namespace hiddennet::runtime
