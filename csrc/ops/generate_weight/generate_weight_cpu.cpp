// generate_weight_cpu.cpp: weights and sign planes from the counter generator on a CPU.
#include <vector>

#include "../../base/blocks.h"
#include "../../base/parallel.h"
#include "generate_weight.h"

namespace hn {
namespace cpu {
namespace {

// Sign planes are 16 bytes a Philox block, little-endian words: bit i % 8 of byte i / 8.
HN_INLINE void sign_blocks_body(const Draw* d, uint32_t first_block, int64_t blocks, uint8_t* out) {
  for (int64_t b = 0; b < blocks; b += kLanes) {
    PhiloxLanes p;
    philox_lanes(*d, kSignStream, first_block + uint32_t(b), &p);
    const int64_t lanes = std::min<int64_t>(kLanes, blocks - b);
    for (int64_t l = 0; l < lanes; ++l) {
      for (int w = 0; w < 4; ++w) {
        const uint32_t word = p.word[w][l];
        uint8_t* to = out + (b + l) * 16 + w * 4;
        to[0] = uint8_t(word);
        to[1] = uint8_t(word >> 8);
        to[2] = uint8_t(word >> 16);
        to[3] = uint8_t(word >> 24);
      }
    }
  }
}

HN_DISPATCH(fill_sign_blocks, sign_blocks_body)

}  // namespace

void generate_signs(const GenerateSignsParams& p) {
  const int64_t whole = p.n / 128, rest = p.n % 128;
  parallel_for(0, whole, kParallelGrain / 128, [&](int64_t begin, int64_t end) {
    fill_sign_blocks(&p.draw, uint32_t(begin), end - begin, p.plane + begin * 16);
  });
  if (rest == 0) return;
  uint8_t last[16];
  fill_sign_blocks(&p.draw, uint32_t(whole), int64_t(1), static_cast<uint8_t*>(last));
  const int64_t bytes = (rest + 7) / 8;
  if (rest % 8 != 0) last[bytes - 1] = uint8_t(last[bytes - 1] & ((1u << (rest % 8)) - 1));
  std::memcpy(p.plane + whole * 16, last, size_t(bytes));
}

void generate_weight(const GenerateWeightParams& p) {
  WeightSource source = p.source;
  std::vector<uint8_t> plane;
  if (p.signs) {
    plane.resize((size_t(p.layout.n) + 7) / 8);
    generate_signs({source.draw, p.layout.n, plane.data()});
    source.kind = Source::kSigns;
    source.plane = plane.data();
  }
  const BlockReader probe(p.layout);
  const int64_t grain = std::max<int64_t>(1, kParallelGrain / 4 / probe.block());
  parallel_for(0, probe.blocks(), grain, [&](int64_t begin, int64_t end) {
    BlockReader reader(p.layout);
    for (int64_t b = begin; b < end; ++b) {
      const int32_t p0 = reader.begin(b), n = reader.size(b);
      const float* weights = reader.weights(source, p0, n);
      for (int32_t e = 0; e < n; ++e) store_float(p.out, p.dtype, p0 + e, weights[e]);
    }
  });
}

}  // namespace cpu
}  // namespace hn
