// level_edges.h: the edges of all levels, by who receives and by who sends, and what each instruction set provides.
#pragma once
#include <cstdint>
#include <vector>

#include "wired_levels.h"

namespace hn {
namespace cpu {

// Edges i of a node are [starts[i], starts[i + 1]); slots say whose map is read.
struct SlotEdges {
  std::vector<int32_t> starts, slots;
  std::vector<float> values;
};

// By receiver: the rows of levels 1, 2, ... one behind the other.
SlotEdges edges_by_receiver(const WiredGraph& g);
// By sending slot. A receiver's slot is its place in the lists by receiver behind the nodes of level 0: that of the maps
// it sends, where it does.
SlotEdges edges_by_sender(const WiredGraph& g, const SlotEdges& by_receiver);

// The loops for one instruction set.
struct LevelLoops {
  int32_t group;  // images that go through the levels together
  void (*forward)(const WiredLevelsParams&, const SlotEdges&);
  void (*backward)(const WiredLevelsBackwardParams&, const SlotEdges&);
  void (*weight_gradient)(const WiredLevelsBackwardParams&);
};

LevelLoops scalar_level_loops();
LevelLoops avx2_level_loops();
LevelLoops avx512_level_loops();

}  // namespace cpu
}  // namespace hn
