// sparse_loops.cpp: the loops of the instruction set in use.
#include "../conv_plan.h"
#include "sparse_args.h"

#define HN_LOOPS "../runtime/conv/sparse_loops.h"
#include "../../base/each_lanes.h"

namespace hiddennet::runtime {

const SparseLoops& sparse_loops() { return HN_LOOPS_IN_USE(kSparseLoops); }

PartGrid part_grid() {
  const int32_t lanes = sparse_loops().lanes;
  return {lanes > 8 ? 4 : 2, lanes > 4 ? 4 : 2};
}

}  // namespace hiddennet::runtime
