// levels_scalar_cpu.cpp: the loops for scalar.
#include <cstdint>
#include <vector>

#include "../../base/aligned.h"
#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "level_edges.h"
#include "wired_levels.h"

#define HN_LANES lanes_scalar
#include "lanes_scalar.h"
// after the lanes
#include "level_nodes.h"
#include "level_pass.h"
#include "level_weight.h"

namespace hn {
namespace cpu {

LevelLoops scalar_level_loops() {
  return {HN_LANES::kGroup, &HN_LANES::levels_forward, &HN_LANES::levels_backward, &HN_LANES::levels_weight};
}

}  // namespace cpu
}  // namespace hn
