// draws.h: the CPU loops' numbers from the counter generator: eight blocks of it side by side, and what is made of them.
#pragma once
#include <cstdint>

#include "distributions.cuh"
#include "isa.h"
#include "rng.cuh"

namespace hn {
namespace cpu {

constexpr int kLanes = 8;

// Philox over kLanes consecutive blocks at once: word[w][lane].
struct PhiloxLanes {
  uint32_t word[4][kLanes];
};

// The ten rounds, on counters that any lane may choose.
HN_INLINE void philox_rounds(const Draw& d, Stream stream, const uint32_t* block, const uint32_t* redraw,
                             PhiloxLanes* out) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    c0[l] = block[l];
    c1[l] = d.layer;
    c2[l] = redraw[l];
    c3[l] = stream;
  }
  uint32_t k0 = d.key0, k1 = d.key1;
  for (int round = 0; round < 10; ++round) {
    for (int l = 0; l < kLanes; ++l) {
      const uint64_t p0 = uint64_t(0xD2511F53u) * c0[l], p1 = uint64_t(0xCD9E8D57u) * c2[l];
      const uint32_t n0 = uint32_t(p1 >> 32) ^ c1[l] ^ k0, n2 = uint32_t(p0 >> 32) ^ c3[l] ^ k1;
      c0[l] = n0;
      c1[l] = uint32_t(p1);
      c2[l] = n2;
      c3[l] = uint32_t(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int l = 0; l < kLanes; ++l) {
    out->word[0][l] = c0[l];
    out->word[1][l] = c1[l];
    out->word[2][l] = c2[l];
    out->word[3][l] = c3[l];
  }
}

HN_INLINE void philox_lanes(const Draw& d, Stream stream, uint32_t first_block, PhiloxLanes* out) {
  uint32_t block[kLanes], redraw[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    block[l] = first_block + uint32_t(l);
    redraw[l] = d.redraw;
  }
  philox_rounds(d, stream, block, redraw, out);
}

// out[e] for OIHW indices [first, first + n); first is a multiple of 32; writes up to the next multiple of 32.
template <class D>
HN_INLINE void numbers_body(D, const Draw* d, float scale, uint32_t first, int32_t n, float* out) {
  for (int32_t e = 0; e < n; e += 4 * kLanes) {
    PhiloxLanes p;
    philox_lanes(*d, D::kStream, (first + uint32_t(e)) / 4, &p);
    float v[4][kLanes];
    if constexpr (D::kPairs) {
      for (int l = 0; l < kLanes; ++l) D::numbers(p.word[0][l], p.word[1][l], &v[0][l], &v[1][l]);
      for (int l = 0; l < kLanes; ++l) D::numbers(p.word[2][l], p.word[3][l], &v[2][l], &v[3][l]);
    } else {
      for (int q = 0; q < 4; ++q) {
        for (int l = 0; l < kLanes; ++l) v[q][l] = D::number(p.word[q][l]);
      }
    }
    for (int l = 0; l < kLanes; ++l) {
      for (int q = 0; q < 4; ++q) out[e + 4 * l + q] = v[q][l] * scale;
    }
  }
}

HN_INLINE void logits_body(const Draw* d, uint32_t first, int32_t n, float* out) {
  for (int32_t e = 0; e < n; e += 4 * kLanes) {
    PhiloxLanes p;
    philox_lanes(*d, kBernoulliStream, (first + uint32_t(e)) / 4, &p);
    float v[4][kLanes];
    for (int q = 0; q < 4; ++q) {
      for (int l = 0; l < kLanes; ++l) v[q][l] = logit_of_word(p.word[q][l]);
    }
    for (int l = 0; l < kLanes; ++l) {
      for (int q = 0; q < 4; ++q) out[e + 4 * l + q] = v[q][l];
    }
  }
}

HN_INLINE void units_body(const Draw* d, uint32_t first, int32_t n, float* out) {
  for (int32_t e = 0; e < n; e += 4 * kLanes) {
    PhiloxLanes p;
    philox_lanes(*d, kBernoulliStream, (first + uint32_t(e)) / 4, &p);
    for (int l = 0; l < kLanes; ++l) {
      for (int q = 0; q < 4; ++q) out[e + 4 * l + q] = unit_of_word(p.word[q][l]);
    }
  }
}

HN_DISPATCH(fill_numbers, numbers_body)
HN_DISPATCH(fill_logits, logits_body)
HN_DISPATCH(fill_units, units_body)

}  // namespace cpu
}  // namespace hn
