// rule.cuh: which weights a layer reveals, as a function of a few bytes of state that outlive the mask.
#pragma once
#include <cstdint>

#include "key.cuh"
#include "layout.cuh"
#include "macros.h"
#include "rng.cuh"

namespace hn {

enum class RuleKind : int32_t {
  kAll = 0,
  kMagnitude = 1,    // selection over |score|
  kValue = 2,        // selection over score
  kBits = 3,         // a packed mask
  kSampled = 4,      // Bernoulli(sigmoid(score)), drawn anew for each value of *step
  kExpectation = 5,  // no draw: the weight times sigmoid(score)
  kRounded = 6,      // flagged, and the score above a threshold; with a step above a uniform draw instead
  kScored = 7,       // flagged: the weight times its score
};

// A selection row, int32[4] on the device of the scores; `topk_select` writes it, everything else reads the first two.
struct Selection {
  uint32_t threshold;  // key of the smallest kept score
  int32_t cut;         // among keys equal to the threshold, OIHW indices below the cut are pruned
  uint32_t width;      // half-width of the next warm bracket, in key units
  int32_t cold;        // how often a bracket missed or none was there
};

HN_HD bool kept_by_selection(uint32_t threshold, int32_t cut, uint32_t key, int32_t i) {
  return key > threshold || (key == threshold && i >= cut);
}

struct Rule {
  RuleKind kind;
  const Selection* selection;  // one row: kMagnitude, kValue, kRounded (by value)
  const uint8_t* bits;         // [ceil(n / 8)] in OIHW order: the mask of kBits, the flags of kRounded and kScored
  const int64_t* step;         // one element, on the device: kSampled; kRounded: null, or the draw's
  Draw draw;                   // where there is a step: `redraw` is replaced by the low 32 bits of *step
};

HN_HD bool bit_of(const uint8_t* plane, int32_t i) { return plane[i >> 3] >> (i & 7) & 1u; }

// Does the rule keep flags, without which an element is neither revealed nor gets a score's gradient?
HN_HD bool has_flags(RuleKind kind) { return kind == RuleKind::kRounded || kind == RuleKind::kScored; }

// The rule's draw at its step.
HN_HD Draw draw_of(const Rule& r) {
  Draw d = r.draw;
  d.redraw = uint32_t(*r.step);
  return d;
}

// Is the element with this score and OIHW index revealed? (kExpectation: always.)
HN_HD bool kept(const Rule& r, float score, int32_t i) {
  switch (r.kind) {
    case RuleKind::kMagnitude:
      return kept_by_selection(r.selection->threshold, r.selection->cut, key_of<Order::kMagnitude>(score), i);
    case RuleKind::kValue:
      return kept_by_selection(r.selection->threshold, r.selection->cut, key_of<Order::kValue>(score), i);
    case RuleKind::kBits:
    case RuleKind::kScored: return bit_of(r.bits, i);
    case RuleKind::kSampled: return score > bernoulli_logit(draw_of(r), uint32_t(i));
    case RuleKind::kRounded:
      if (!bit_of(r.bits, i)) return false;
      if (r.step != nullptr) return score > bernoulli_unit(draw_of(r), uint32_t(i));
      return kept_by_selection(r.selection->threshold, r.selection->cut, key_of<Order::kValue>(score), i);
    default: return true;
  }
}

HN_HD float sigmoid(float x) {
#if defined(__CUDA_ARCH__)
  return 1.0f / (1.0f + expf(-x));
#else
  return 1.0f / (1.0f + __builtin_expf(-x));
#endif
}

// d(effective weight) / d(score) without the weight: the straight-through surrogate of each rule.
HN_HD float surrogate(const Rule& r, float score, int32_t i) {
  switch (r.kind) {
    case RuleKind::kMagnitude: return score > 0.0f ? 1.0f : (score < 0.0f ? -1.0f : 0.0f);
    case RuleKind::kSampled:
    case RuleKind::kExpectation: {
      const float p = sigmoid(score);
      return p * (1.0f - p);
    }
    case RuleKind::kRounded:
    case RuleKind::kScored: return bit_of(r.bits, i) ? 1.0f : 0.0f;
    default: return 1.0f;
  }
}

}  // namespace hn
