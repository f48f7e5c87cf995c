// blocks.h: the CPU loops' way through a layer: a block of weights, masks or draws at a time, in an L1 buffer.
//
// Everything here is a vectorised equal of `weight_at` and `kept`. In OIHW layout a block is any range of up to kBlock
// elements that starts at a multiple of 128; in OHWI layout it is one filter, made in OIHW order and then permuted.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "bit_order.h"
#include "draws.h"
#include "isa.h"
#include "key.cuh"
#include "key_avx2.h"
#include "layout.cuh"
#include "rng.cuh"
#include "rule.cuh"
#include "source.cuh"

namespace hn {
namespace cpu {

constexpr int32_t kBlock = 1024;

// first is a multiple of 8 here and below; reads whole bytes of the plane that hold any of the n bits.
HN_INLINE void signs_body(const uint8_t* plane, float scale, uint32_t first, int32_t n, float* out) {
  const uint32_t bits = float_bits(scale);
  const uint8_t* bytes = plane + first / 8;
  for (int32_t e = 0; e < n; e += 8) {
    const uint32_t b = bytes[e / 8];
    for (uint32_t q = 0; q < 8; ++q) out[e + q] = bits_float(bits ^ ((b >> q & 1u) << 31));
  }
}

HN_INLINE void expand_bits_body(const uint8_t* plane, uint32_t first, int32_t n, uint32_t* out) {
  const uint8_t* bytes = plane + first / 8;
  for (int32_t e = 0; e < n; e += 8) {
    const uint32_t b = bytes[e / 8];
    for (uint32_t q = 0; q < 8; ++q) out[e + q] = 0u - (b >> q & 1u);
  }
}

HN_INLINE void fill_body(float value, int32_t n, float* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = value;
}

template <Order kOrder>
HN_INLINE void compare_body(const float* scores, uint32_t threshold, int32_t n, uint32_t* keep) {
  for (int32_t e = 0; e < n; ++e) keep[e] = 0u - uint32_t(key_of<kOrder>(scores[e]) >= threshold);
}

HN_INLINE void above_body(const float* scores, const float* logits, int32_t n, uint32_t* keep) {
  for (int32_t e = 0; e < n; ++e) keep[e] = 0u - uint32_t(scores[e] > logits[e]);
}

HN_INLINE void intersect_body(const uint32_t* bits, int32_t n, uint32_t* keep) {
  for (int32_t e = 0; e < n; ++e) keep[e] &= bits[e];
}

HN_DISPATCH(fill_signs, signs_body)
HN_DISPATCH(fill_value, fill_body)
HN_DISPATCH(compare_magnitude, compare_body<Order::kMagnitude>)
HN_DISPATCH(compare_value, compare_body<Order::kValue>)
HN_DISPATCH(compare_above, above_body)
HN_DISPATCH(intersect, intersect_body)

#if defined(HN_X86)
HN_TARGET_AVX2 inline void fill_bits_avx2(const uint8_t* bytes, int32_t n, uint32_t* out) {
  for (int32_t e = 0; e < n; e += 8) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + e), bit_lanes(bytes[e / 8]));
}

// keep[e] = all ones where the flag is set and the key is not below the threshold. `flags` starts at element 0.
HN_TARGET_AVX2 inline void compare_flagged_avx2(const float* scores, const uint8_t* flags, uint32_t threshold,
                                                int32_t n, uint32_t* keep) {
  const __m256i limit = _mm256_set1_epi32(int(threshold ^ 0x80000000u));
  int32_t e = 0;
  for (; e + 8 <= n; e += 8) {
    const __m256i key = signed_keys<Order::kValue>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + e)));
    const __m256i kept = _mm256_andnot_si256(_mm256_cmpgt_epi32(limit, key), bit_lanes(flags[e / 8]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(keep + e), kept);
  }
  for (; e < n; ++e) keep[e] = 0u - uint32_t(bit_of(flags, e) && key_of<Order::kValue>(scores[e]) >= threshold);
}
#endif

inline void fill_bits(const uint8_t* plane, uint32_t first, int32_t n, uint32_t* out) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return fill_bits_avx2(plane + first / 8, n, out);
#endif
  expand_bits_body(plane, first, n, out);
}

// Whether memory has another order than OIHW indices.
inline bool reorders(const Layout& layout) { return layout.channels_last && layout.taps > 1 && layout.channels > 1; }

// A block of one layer, and the buffers it is worked on in. One a thread; reused from block to block.
class BlockReader {
 public:
  explicit BlockReader(const Layout& layout)
      : layout_(layout), permuted_(reorders(layout)), block_(permuted_ ? layout.per_filter : kBlock) {
    const size_t room = size_t(block_) + 256;
    weights_.resize(room);
    keep_.resize(room);
    ordered_.resize(permuted_ ? room : 0);
    in_bytes_ = permuted_ && reorders_bytes(layout.channels, layout.taps);
    bytes_.resize(in_bytes_ ? room / 8 : 0);
  }

  int32_t block() const { return block_; }
  int64_t blocks() const { return (int64_t(layout_.n) + block_ - 1) / block_; }
  int32_t begin(int64_t b) const { return int32_t(b * block_); }
  int32_t size(int64_t b) const { return int32_t(std::min<int64_t>(block_, layout_.n - b * block_)); }

  // weight_at for positions [p0, p0 + n).
  const float* weights(const WeightSource& w, int32_t p0, int32_t n) {
    if (w.kind == Source::kStored) return w.stored + p0;
    if (w.kind == Source::kConstant) {
      fill_value(w.scale, n, weights_.data());
      return weights_.data();
    }
    if (w.kind == Source::kSigns && in_bytes_) {
      fill_signs(ordered_bytes(w.plane, p0), w.scale, 0u, n, weights_.data());
      return weights_.data();
    }
    return in_memory_order(p0, n, weights_.data(), [&](uint32_t first, int32_t count, float* out) {
      if (w.kind == Source::kSigns) {
        fill_signs(w.plane, w.scale, first, count, out);
      } else {
        with_distribution(w.kind, [&](auto d) { fill_numbers(d, &w.draw, w.scale, first, count, out); });
      }
    });
  }

  // kept() for positions [p0, p0 + n): all ones or all zeros. `scores` points at position p0.
  const uint32_t* keep(const Rule& r, const float* scores, int32_t p0, int32_t n) {
    uint32_t* out = keep_.data();
    switch (r.kind) {
      case RuleKind::kMagnitude: {
        compare_magnitude(scores, r.selection->threshold, n, out);
        prune_ties<Order::kMagnitude>(*r.selection, scores, p0, n);
        return out;
      }
      case RuleKind::kValue: {
        compare_value(scores, r.selection->threshold, n, out);
        prune_ties<Order::kValue>(*r.selection, scores, p0, n);
        return out;
      }
      case RuleKind::kBits:
      case RuleKind::kScored: return bits(r, p0, n);
      case RuleKind::kSampled: {
        const Draw d = draw_of(r);
        compare_above(
            scores, drawn(p0, n, [&](uint32_t first, int32_t count, float* to) { fill_logits(&d, first, count, to); }),
            n, out);
        return out;
      }
      case RuleKind::kRounded: keep_rounded(r, scores, p0, n); return out;
      default: std::fill_n(out, n, ~0u); return out;
    }
  }

  // A plane of bits for positions [p0, p0 + n): all ones or all zeros.
  const uint32_t* plane(const uint8_t* bits, int32_t p0, int32_t n) {
    bits_.resize(keep_.size());
    if (in_bytes_) {
      fill_bits(ordered_bytes(bits, p0), 0, n, bits_.data());
      return bits_.data();
    }
    float* buffer = reinterpret_cast<float*>(bits_.data());
    return reinterpret_cast<const uint32_t*>(
        in_memory_order(p0, n, buffer, [&](uint32_t first, int32_t count, float* to) {
          fill_bits(bits, first, count, reinterpret_cast<uint32_t*>(to));
        }));
  }

  // The bytes of a plane whose bits lie as the elements of block [p0, ...) do; null where they are not in bytes.
  const uint8_t* bytes_of(const uint8_t* plane, int32_t p0) {
    if (in_bytes_) return ordered_bytes(plane, p0);
    return permuted_ ? nullptr : plane + p0 / 8;
  }

  // The rule's plane.
  const uint32_t* bits(const Rule& r, int32_t p0, int32_t n) { return plane(r.bits, p0, n); }

 private:
  // The bits of the filter at position p0 as it lies in memory.
  const uint8_t* ordered_bytes(const uint8_t* plane, int32_t p0) {
    reorder_bytes(plane + p0 / 8, layout_.channels, bytes_.data());
    return bytes_.data();
  }

  template <class Make>
  const float* drawn(int32_t p0, int32_t n, const Make& make) {
    drawn_.resize(keep_.size());
    return in_memory_order(p0, n, drawn_.data(), make);
  }

  void keep_rounded(const Rule& r, const float* scores, int32_t p0, int32_t n) {
    uint32_t* out = keep_.data();
    if (r.step != nullptr) {
      const Draw d = draw_of(r);
      compare_above(scores,
                    drawn(p0, n, [&](uint32_t first, int32_t count, float* to) { fill_units(&d, first, count, to); }),
                    n, out);
      intersect(bits(r, p0, n), n, out);
      return;
    }
    const uint32_t threshold = r.selection->threshold;
#if defined(HN_X86)
    if (!permuted_ && isa() == Isa::kAvx2) {  // blocks start at a multiple of 8
      compare_flagged_avx2(scores, r.bits + p0 / 8, threshold, n, out);
      prune_ties<Order::kValue>(*r.selection, scores, p0, n);
      return;
    }
#endif
    compare_value(scores, threshold, n, out);
    prune_ties<Order::kValue>(*r.selection, scores, p0, n);
    intersect(bits(r, p0, n), n, out);
  }

  // Calls make(first OIHW index, count, buffer) and brings the result into memory order. Returns where it lies.
  template <class Make>
  const float* in_memory_order(int32_t p0, int32_t n, float* buffer, const Make& make) {
    const int32_t first = p0 & ~127;
    if (!permuted_) {
      make(uint32_t(first), n + (p0 - first), buffer);
      return buffer + (p0 - first);
    }
    make(uint32_t(first), n + (p0 - first), ordered_.data());
    const float* from = ordered_.data() + (p0 - first);
    for (int32_t s = 0; s < layout_.taps; ++s) {
      for (int32_t c = 0; c < layout_.channels; ++c) buffer[s * layout_.channels + c] = from[c * layout_.taps + s];
    }
    return buffer;
  }

  template <Order kOrder>
  void prune_ties(const Selection& s, const float* scores, int32_t p0, int32_t n) {
    if (s.cut == 0) return;
    for (int32_t e = 0; e < n; ++e) {
      if (key_of<kOrder>(scores[e]) == s.threshold && layout_.logical(p0 + e) < s.cut) keep_[e] = 0;
    }
  }

  Layout layout_;
  bool permuted_;
  bool in_bytes_;  // permuted, and a filter's bits can be brought into memory's order byte by byte
  int32_t block_;
  std::vector<float> weights_, ordered_, drawn_;
  std::vector<uint32_t> keep_, bits_;
  std::vector<uint8_t> bytes_;
};

// Elements below which a layer is not worth a second thread.
constexpr int64_t kParallelGrain = 65536;

}  // namespace cpu
}  // namespace hn
