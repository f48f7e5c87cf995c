// weight_unit.cuh: the eight weights one thread owns: where they lie, which are kept, what they
// weigh. Device twin of `kept` and `weight_at`, equal to them bit for bit; reductions and
// convolutions do not belong here.
//
// Eight, because eight sign or mask bits are one byte, and two Philox blocks are eight uniforms,
// normals or draws. A unit starts at a multiple of eight, so a byte or a Philox block is never
// shared between two threads.
#pragma once
#include <type_traits>

#include "../../base/dtype.h"
#include "../../base/launch.cuh"
#include "../../base/layout.cuh"
#include "../../base/memory.cuh"
#include "../../base/rule.cuh"
#include "../../base/source.cuh"

namespace hn {
namespace cuda {

constexpr int kUnit = 8;
constexpr int kUnitThreads = 256;

// Which eight elements belong together.
enum class Walk {
  kFlat,      // memory order is OIHW order
  kPhysical,  // neighbours in OHWI memory: vectors of floats, bits gathered one by one
  kLogical,   // OIHW neighbours of OHWI memory: whole Philox blocks, floats gathered one by one
  kStaged,    // as kPhysical; all eight exist, and the tensors are aligned to 16 bytes (staged_unit.cuh)
};

template <Walk kWalk>
struct Unit {
  static constexpr bool kByPosition = kWalk == Walk::kPhysical || kWalk == Walk::kStaged;

  int32_t first;         // OIHW index of element 0 (kByPosition: its position); a multiple of kUnit
  int32_t count;         // 1..kUnit elements exist; the others are never read or written
  int32_t other[kUnit];  // kByPosition: OIHW indices; kLogical: positions; kFlat: unused

  __device__ __forceinline__ int32_t position(int e) const { return kWalk == Walk::kLogical ? other[e] : first + e; }
  __device__ __forceinline__ int32_t index(int e) const { return kByPosition ? other[e] : first + e; }

  __device__ __forceinline__ bool whole() const { return count == kUnit; }
  // Do the elements travel from or to `p` 16 bytes at a time?
  __device__ __forceinline__ bool in_vectors(const void* p) const {
    if constexpr (kWalk == Walk::kStaged) return true;
    return kWalk != Walk::kLogical && whole() && is_aligned<16>(p);
  }
};

// One division for the first element; the other seven are its successors.
template <Walk kWalk>
__device__ __forceinline__ Unit<kWalk> make_unit(const Layout& layout, int32_t first) {
  Unit<kWalk> u;
  u.first = first;
  u.count = layout.n - first < kUnit ? layout.n - first : kUnit;
  if constexpr (kWalk == Walk::kFlat) return u;
  // Physical order runs through channels, then taps; OIHW order through taps, then channels.
  constexpr bool kByChannel = kWalk == Walk::kPhysical;
  const int32_t inner = kByChannel ? layout.channels : layout.taps, outer = kByChannel ? layout.taps : layout.channels;
  int32_t base = first / layout.per_filter * layout.per_filter;
  int32_t slow = (first - base) / inner, fast = first - base - slow * inner;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    u.other[e] = base + fast * outer + slow;
    if (++fast == inner) {
      fast = 0;
      if (++slow == outer) {
        slow = 0;
        base = e + 1 < u.count ? base + layout.per_filter : 0;  // past the end: anywhere
      }
    }
  }
  return u;
}

// `from` as eight floats; 0 where the unit has no element.
template <Walk kWalk>
__device__ __forceinline__ void load_floats(const float* from, const Unit<kWalk>& u, float (&out)[kUnit]) {
  if (u.in_vectors(from)) {
    const Vec<float, 4> a = load_vec<4>(from + u.first), b = load_vec<4>(from + u.first + 4);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      out[e] = a[e];
      out[e + 4] = b[e];
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) out[e] = e < u.count ? from[u.position(e)] : 0.0f;
}

// The same from any dtype.
template <Walk kWalk>
__device__ __forceinline__ void load_as_floats(const void* from, Dtype dtype, const Unit<kWalk>& u,
                                               float (&out)[kUnit]) {
  if (dtype == Dtype::kFloat32) return load_floats(static_cast<const float*>(from), u, out);
  const auto* halves = static_cast<const uint16_t*>(from);
  if (u.in_vectors(halves)) {
    const Vec<uint16_t, 8> v = load_vec<8>(halves + u.first);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = dtype == Dtype::kBFloat16 ? from_bfloat16(v[e]) : from_float16(v[e]);
    return;
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) out[e] = e < u.count ? load_as_float(from, dtype, u.position(e)) : 0.0f;
}

// Eight neighbours, 16 bytes at a time: `to` is aligned so.
__device__ __forceinline__ void store_unit(float* to, const float (&x)[kUnit]) {
  store_vec(to, Vec<float, 4>{{x[0], x[1], x[2], x[3]}});
  store_vec(to + 4, Vec<float, 4>{{x[4], x[5], x[6], x[7]}});
}
__device__ __forceinline__ void store_unit(void* to, Dtype dtype, int32_t first, const float (&x)[kUnit]) {
  if (dtype == Dtype::kFloat32) return store_unit(static_cast<float*>(to) + first, x);
  Vec<uint16_t, 8> v;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) v[e] = dtype == Dtype::kBFloat16 ? bfloat16_bits(x[e]) : float16_bits(x[e]);
  store_vec(static_cast<uint16_t*>(to) + first, v);
}

template <Walk kWalk>
__device__ __forceinline__ void store_floats(void* to, Dtype dtype, const Unit<kWalk>& u, const float (&x)[kUnit]) {
  if (u.in_vectors(to)) return store_unit(to, dtype, u.first, x);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (e < u.count) store_float(to, dtype, u.position(e), x[e]);
  }
}

// The eight bits of a packed plane; bits of missing elements may be anything.
template <Walk kWalk>
__device__ __forceinline__ uint32_t load_bits(const uint8_t* plane, const Unit<kWalk>& u) {
  if (!u.kByPosition) return plane[u.first >> 3];
  uint32_t bits = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (e < u.count) bits |= uint32_t(plane[u.index(e) >> 3] >> (u.index(e) & 7) & 1) << e;
  }
  return bits;
}

// f(first element, block) for the unit's two Philox blocks. `walk_of` keeps those by position away.
template <Walk kWalk, class F>
__device__ __forceinline__ void for_each_word(const Draw& draw, Stream stream, const Unit<kWalk>& u, const F& f) {
  if constexpr (Unit<kWalk>::kByPosition) {
    __trap();
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      f(half * 4, philox_block(draw, stream, uint32_t(u.first) / 4 + half));
    }
  }
}

template <Order kOrder, Walk kWalk>
__device__ __forceinline__ uint32_t selected_bits(const Selection* row, const float (&scores)[kUnit],
                                                  const Unit<kWalk>& u) {
  const uint32_t threshold = row->threshold;
  const int32_t cut = row->cut;
  uint32_t bits = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    bits |= uint32_t(kept_by_selection(threshold, cut, key_of<kOrder>(scores[e]), u.index(e))) << e;
  }
  return bits;
}

// What a score must exceed where the rule draws, of a unit of OIHW neighbours.
template <Walk kWalk>
__device__ __forceinline__ void drawn_bars(const Rule& rule, const Unit<kWalk>& u, float (&bars)[kUnit]) {
  for_each_word(draw_of(rule), kBernoulliStream, u, [&](int first, const Philox4& p) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      bars[first + q] = rule.kind == RuleKind::kSampled ? logit_of_word(p.word[q]) : unit_of_word(p.word[q]);
    }
  });
}

// kept_bits of a rule that draws, whose bars are given.
template <Walk kWalk>
__device__ __forceinline__ uint32_t bits_above(const Rule& rule, const float (&scores)[kUnit],
                                               const float (&bars)[kUnit], const Unit<kWalk>& u) {
  uint32_t bits = rule.kind == RuleKind::kRounded ? load_bits(rule.bits, u) : 0xffu, above = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) above |= uint32_t(scores[e] > bars[e]) << e;
  return bits & above;
}

// Bit e = kept(rule, scores[e], index(e)). kExpectation: all ones.
template <Walk kWalk>
__device__ __forceinline__ uint32_t kept_bits(const Rule& rule, const float (&scores)[kUnit], const Unit<kWalk>& u) {
  switch (rule.kind) {
    case RuleKind::kMagnitude: return selected_bits<Order::kMagnitude>(rule.selection, scores, u);
    case RuleKind::kValue: return selected_bits<Order::kValue>(rule.selection, scores, u);
    case RuleKind::kBits:
    case RuleKind::kScored: return load_bits(rule.bits, u);
    case RuleKind::kRounded:
      if (rule.step == nullptr) {
        return load_bits(rule.bits, u) & selected_bits<Order::kValue>(rule.selection, scores, u);
      }
      [[fallthrough]];
    case RuleKind::kSampled: {
      float bars[kUnit] = {};
      drawn_bars(rule, u, bars);
      return bits_above(rule, scores, bars, u);
    }
    default: return 0xffu;
  }
}

// The four numbers of a block, times the scale.
template <class D>
__device__ __forceinline__ void numbers_of(const Philox4& block, float scale, float* out) {
#pragma unroll
  for (int q = 0; q < 4; q += 2) {
    float even, odd;
    if constexpr (D::kPairs) {
      D::numbers(block.word[q], block.word[q + 1], &even, &odd);
    } else {
      even = D::number(block.word[q]);
      odd = D::number(block.word[q + 1]);
    }
    out[q] = mul_rn(even, scale);
    out[q + 1] = mul_rn(odd, scale);
  }
}

// out[e] = weight_at(source, position(e), index(e)).
template <Walk kWalk>
__device__ __forceinline__ void unit_weights(const WeightSource& source, const Unit<kWalk>& u, float (&out)[kUnit]) {
  switch (source.kind) {
    case Source::kStored: load_floats(source.stored, u, out); return;
    case Source::kConstant:
#pragma unroll
      for (int e = 0; e < kUnit; ++e) out[e] = source.scale;
      return;
    case Source::kSigns: {
      const uint32_t bits = load_bits(source.plane, u);
#pragma unroll
      for (int e = 0; e < kUnit; ++e) out[e] = signed_scale(source.scale, bits >> e & 1u);
      return;
    }
    default: break;
  }
  with_distribution(source.kind, [&](auto d) {
    for_each_word(source.draw, d.kStream, u,
                  [&](int first, const Philox4& block) { numbers_of<decltype(d)>(block, source.scale, out + first); });
  });
}

// dL/dscore of a unit, in place of that of the effective weight: times the weights and the rule's surrogate.
template <Walk kWalk>
__device__ __forceinline__ void unit_score_gradient(const Rule& rule, const Unit<kWalk>& u,
                                                    const float (&weights)[kUnit], const float (&scores)[kUnit],
                                                    float (&grad)[kUnit]) {
  if (has_flags(rule.kind)) {
    const uint32_t flags = load_bits(rule.bits, u);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) grad[e] = flags >> e & 1u ? mul_rn(grad[e], weights[e]) : 0.0f;
    return;
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    grad[e] = mul_rn(mul_rn(grad[e], weights[e]), surrogate(rule, scores[e], u.index(e)));
  }
}

HN_HD bool draws_words(const WeightSource& s) { return draws_words(s.kind); }
HN_HD bool draws_words(const Rule& r) {
  return r.kind == RuleKind::kSampled || (r.kind == RuleKind::kRounded && r.step != nullptr);
}

// OHWI memory in OIHW order anyway counts as flat. `draws`: the rule or source makes Philox words.
inline Walk walk_of(const Layout& layout, bool draws) {
  if (!layout.channels_last || layout.taps == 1 || layout.channels == 1) return Walk::kFlat;
  return draws ? Walk::kLogical : Walk::kPhysical;
}

template <Walk kWalk>
using WalkTag = std::integral_constant<Walk, kWalk>;

// f(tag of the walk), returning an error code.
template <class F>
int visit_walk(Walk walk, const F& f) {
  switch (walk) {
    case Walk::kFlat: return f(WalkTag<Walk::kFlat>{});
    case Walk::kPhysical: return f(WalkTag<Walk::kPhysical>{});
    default: return f(WalkTag<Walk::kLogical>{});
  }
}

inline dim3 unit_grid(int32_t n) {
  const int64_t units = (int64_t(n) + kUnit - 1) / kUnit;
  return dim3(unsigned((units + kUnitThreads - 1) / kUnitThreads));
}

}  // namespace cuda
}  // namespace hn
