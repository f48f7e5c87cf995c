// level_edges.h: the edges of all levels, by who receives and by who sends, and what each instruction set provides.
#pragma once
#include <cstdint>
#include <vector>

#include "wired_levels.h"

namespace hn {
namespace cpu {

// Where the maps of a group of images lie while it goes through the levels. A receiver's slot is that of the maps it
// sends, where it does; those of the last level are behind all others. Where each level reads the one before alone two
// levels share the room.
struct LevelPlaces {
  std::vector<int32_t> of;  // by slot
  int32_t room;             // maps

  explicit LevelPlaces(const WiredGraph& g);
};

// Edges i of a node are [starts[i], starts[i + 1]); places say whose map is read.
struct PlacedEdges {
  std::vector<int32_t> starts, places;
  std::vector<float> values;
};

// By receiver: the slots behind those of level 0.
PlacedEdges edges_by_receiver(const WiredGraph& g, const LevelPlaces& places);
// By sending slot.
PlacedEdges edges_by_sender(const WiredGraph& g, const LevelPlaces& places);

// 0 to n - 1 so that any half, quarter, ... of the order has numbers from everywhere: the first columns of a graph without
// cycles are read by most rows.
std::vector<int32_t> dealt_out(int32_t n);

// The loops for one instruction set.
struct LevelLoops {
  int32_t group;  // images that go through the levels together
  void (*forward)(const WiredLevelsParams&, const LevelPlaces&, const PlacedEdges&);
  void (*backward)(const WiredLevelsBackwardParams&, const LevelPlaces&, const PlacedEdges&);
  void (*weight_gradient)(const WiredLevelsBackwardParams&);
};

LevelLoops scalar_level_loops();
LevelLoops avx2_level_loops();
LevelLoops avx512_level_loops();
LevelLoops amx_level_loops();

}  // namespace cpu
}  // namespace hn
