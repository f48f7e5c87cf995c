// levels_avx512_cpu.cpp: the loops for avx512.
#include <cstdint>
#include <vector>

#include "../../base/aligned.h"
#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "level_edges.h"
#include "wired_levels.h"

#define HN_LANES lanes_avx512

#if defined(HN_X86)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of the compiler's own undefined registers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq")
#include "lanes_avx512.h"
// after the lanes
#include "level_nodes.h"
#include "level_pass.h"
#include "level_weight.h"
#pragma GCC pop_options

namespace hn {
namespace cpu {

LevelLoops avx512_level_loops() {
  return {HN_LANES::kGroup, &HN_LANES::levels_forward, &HN_LANES::levels_backward, &HN_LANES::levels_weight};
}

}  // namespace cpu
}  // namespace hn

#endif  // HN_X86
