// mask_cpu.cpp: masks as bytes and as packed bits on a CPU.
#include "../../base/blocks.h"
#include "../../base/parallel.h"
#include "mask.h"

namespace hn {
namespace cpu {

void rule_mask(const RuleMaskParams& p) {
  const BlockReader probe(p.layout);
  const int64_t grain = std::max<int64_t>(1, kParallelGrain / probe.block());
  parallel_for(0, probe.blocks(), grain, [&](int64_t begin, int64_t end) {
    BlockReader reader(p.layout);
    for (int64_t b = begin; b < end; ++b) {
      const int32_t p0 = reader.begin(b), n = reader.size(b);
      const uint32_t* keep = reader.keep(p.rule, p.scores == nullptr ? nullptr : p.scores + p0, p0, n);
      for (int32_t e = 0; e < n; ++e) p.mask[p0 + e] = uint8_t(keep[e] & 1u);
    }
  });
}

void pack_mask(const PackMaskParams& p) {
  parallel_for(0, (int64_t(p.layout.n) + 7) / 8, kParallelGrain / 8, [&](int64_t begin, int64_t end) {
    for (int64_t byte = begin; byte < end; ++byte) {
      uint32_t bits = 0;
      for (int32_t q = 0; q < 8 && byte * 8 + q < p.layout.n; ++q) {
        bits |= uint32_t(p.mask[p.layout.physical(int32_t(byte * 8 + q))] != 0) << q;
      }
      p.bits[byte] = uint8_t(bits);
    }
  });
}

void unpack_mask(const UnpackMaskParams& p) {
  parallel_for(0, p.layout.n, kParallelGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      p.mask[p.layout.physical(int32_t(i))] = uint8_t(p.bits[i >> 3] >> (i & 7) & 1);
    }
  });
}

}  // namespace cpu
}  // namespace hn
