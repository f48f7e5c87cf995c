// compact_avx2.h: move the chosen of eight lanes to the front, to append them to a list without a branch.
#pragma once
#include "isa.h"

#if defined(HN_X86)

#include <array>
#include <cstdint>

namespace hn {
namespace cpu {

// For each 8-bit mask, the lanes whose bit is set, moved to the front.
constexpr std::array<std::array<uint32_t, 8>, 256> make_compaction_table() {
  std::array<std::array<uint32_t, 8>, 256> table{};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    uint32_t count = 0;
    for (uint32_t lane = 0; lane < 8; ++lane) {
      if (mask >> lane & 1u) table[mask][count++] = lane;
    }
  }
  return table;
}
alignas(32) inline constexpr auto kCompaction = make_compaction_table();

HN_TARGET_AVX2 inline __m256i compacted(__m256i lanes, unsigned mask) {
  const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(kCompaction[mask].data()));
  return _mm256_permutevar8x32_epi32(lanes, order);
}

}  // namespace cpu
}  // namespace hn

#endif
