// levels_amx_cpu.cpp: the weight's gradient on AMX, all else as for avx512.
#include <cstdint>
#include <vector>

#include "../../base/aligned.h"
#include "../../base/amx.h"
#include "../../base/parallel.h"
#include "level_edges.h"
#include "wired_levels.h"

#define HN_LANES lanes_amx

#if defined(HN_AMX)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of the compiler's own undefined registers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512bf16,amx-tile,amx-bf16")
#include "lanes_avx512.h"
// after the lanes
#include "level_nodes.h"
#include "level_pass.h"
#include "level_tiles.h"
#pragma GCC pop_options
#endif

namespace hn {
namespace cpu {

LevelLoops amx_level_loops() {
#if defined(HN_AMX)
  LevelLoops loops = avx512_level_loops();
  loops.weight_gradient = &HN_LANES::levels_weight;
  return loops;
#else
  return avx512_level_loops();
#endif
}

}  // namespace cpu
}  // namespace hn
