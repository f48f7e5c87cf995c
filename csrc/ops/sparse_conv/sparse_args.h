// sparse_args.h: what the loops of sparse_conv take. They are compiled once an instruction set (sparse_loops.h).
#pragma once
#include <cstdint>

namespace hn {
namespace cpu {

// A list names places in a tile, in units of 8 bytes: of the weights above zero and of those below (kSigned); of all that
// are not zero, with their values (kValued) or without (kPlaces).
enum class ListKind { kSigned, kValued, kPlaces };

struct ListHead {
  int64_t start, below;   // of the entries; of those of weights below zero
  int32_t first, second;  // how many
};

// Lists of `outs` outputs over some channels and all taps of a grid.
struct BuildArgs {
  const float* weight;  // of an output's tap t and channel c at [tap_at[t] + c]
  int64_t out_stride;
  int32_t outs, channels, taps;
  const int64_t* tap_at;
  const int32_t* tap_place;  // vectors from the tile's start
  int32_t positions;         // vectors from a channel to the next one
  ListKind kind;
  float magnitude;  // of every weight that is not zero, when kSigned
  int64_t start;    // of the first list
  ListHead* heads;  // [outs]
  uint16_t* offsets;
  uint16_t* below;  // when kSigned
  float* values;    // when kValued
};

// A tile of `channels` vectors a position: lane l holds what lies at from[position * lanes + l] on.
struct PackArgs {
  const float* const* from;
  int32_t positions, pitch;  // vectors from a channel to the next one: at least positions
  int32_t channels, first;   // channels of the tile; the first one's place in memory
  float* tile;               // [channels][pitch][lanes]
  int64_t ahead;             // floats from what is read to what will be read next
};

struct AddArgs {
  const float* tile;
  int64_t row;  // floats from an output's row of the block to the next one's
  const ListHead* heads;
  const uint16_t* offsets;
  const uint16_t* below;
  const float* values;
  int32_t outs;
  bool fresh;   // sums start from zero
  float* sums;  // [outs][block][lanes]
};

struct WriteArgs {
  const float* sums;  // [outs][block][lanes]
  int32_t outs, block;
  float factor;
  float* const* to;  // of (position, lane): memory of `outs` floats, or null
};

// dw[entry] += the dot product over the block and the lanes of an output's gradients and what the entry's place holds.
struct DotArgs {
  const float* tile;
  int64_t row;
  const ListHead* heads;
  const uint16_t* offsets;
  int32_t outs;
  bool fresh;              // dw is written
  const float* gradients;  // [outs][block][lanes]
  float* dw;               // of an entry, where its offset lies
};

struct TurnArgs {  // to[column's target] gets a matrix's column
  const float* from;
  int64_t row;  // floats from a row to the next one
  int64_t rows;
  int32_t columns;
  float* const* to;  // [columns]
};

struct BlockShape {
  int32_t rows, columns;
  int32_t outputs() const { return rows * columns; }
};

struct SparseLoops {
  int32_t lanes;
  BlockShape blocks[6];  // the kinds of blocks, the last one of one position
  bool (*build)(const BuildArgs&);
  void (*pack)(const PackArgs&);
  void (*add)(int kind, bool is_signed, const AddArgs&);
  void (*dot)(int kind, const DotArgs&);
  void (*write)(const WriteArgs&);
  void (*turn)(const TurnArgs&);
};

// Of the instruction set in use.
const SparseLoops& sparse_loops();

}  // namespace cpu
}  // namespace hn
