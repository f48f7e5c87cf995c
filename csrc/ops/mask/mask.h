// mask.h: a rule's mask as bytes, and masks as packed bits: 1 bit a weight, OIHW order, bit i % 8 of byte i / 8.
#pragma once
#include <cstdint>

#include "../../base/layout.cuh"
#include "../../base/rule.cuh"

namespace hn {

struct RuleMaskParams {
  const float* scores;  // [n] in `layout`, or null when the rule reads none
  Rule rule;
  Layout layout;
  uint8_t* mask;  // [n] in `layout`, 0 or 1
};

struct PackMaskParams {
  const uint8_t* mask;  // [n] in `layout`; any non-zero byte counts as 1
  Layout layout;
  uint8_t* bits;  // [ceil(n / 8)], written in full; bits past n are 0
};

struct UnpackMaskParams {
  const uint8_t* bits;  // [ceil(n / 8)]
  Layout layout;
  uint8_t* mask;  // [n] in `layout`, 0 or 1
};

namespace cpu {
void rule_mask(const RuleMaskParams& p);
void pack_mask(const PackMaskParams& p);
void unpack_mask(const UnpackMaskParams& p);
}  // namespace cpu

namespace cuda {
int rule_mask(const RuleMaskParams& p, void* stream);
int pack_mask(const PackMaskParams& p, void* stream);
int unpack_mask(const UnpackMaskParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
