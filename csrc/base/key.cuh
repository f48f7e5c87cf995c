// key.cuh: map a float32 score to a uint32 whose unsigned order is the order of selection.
//
// By magnitude the key orders |s|; by value it orders s. -0 equals +0; every NaN ranks above every number, as in
// torch.sort. The map is monotone, so a threshold found on keys is a threshold on scores.
#pragma once
#include <cstdint>

#include "bits.cuh"
#include "macros.h"

namespace hn {

enum class Order : int32_t { kMagnitude = 0, kValue = 1 };

constexpr uint32_t kNanKey = 0xffffffffu;

HN_HD uint32_t magnitude_key(uint32_t bits) {
  const uint32_t m = bits & 0x7fffffffu;
  return m > 0x7f800000u ? kNanKey : m;
}

HN_HD uint32_t value_key(uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return kNanKey;
  if (bits == 0x80000000u) bits = 0;
  return bits ^ (bits & 0x80000000u ? 0xffffffffu : 0x80000000u);
}

template <Order kOrder>
HN_HD uint32_t key_of(float score) {
  return kOrder == Order::kMagnitude ? magnitude_key(float_bits(score)) : value_key(float_bits(score));
}

HN_HD uint32_t key_of(Order order, float score) {
  return order == Order::kMagnitude ? magnitude_key(float_bits(score)) : value_key(float_bits(score));
}

// A score with this key: the non-negative one by magnitude; +0 of the zeros; a quiet NaN of the NaNs.
HN_HD float score_of_key(Order order, uint32_t key) {
  if (key == kNanKey) return bits_float(0x7fc00000u);
  if (order == Order::kMagnitude) return bits_float(key);
  return bits_float(key ^ (key & 0x80000000u ? 0x80000000u : 0xffffffffu));
}

}  // namespace hn
