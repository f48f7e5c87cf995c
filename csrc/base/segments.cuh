// segments.cuh: many layers in one launch: a table of them in the kernel's parameters, searched by every block.
//
// A table has `int32_t count` and `Entry entry[N]`; an entry has `int32_t first_block`: the blocks of those before it.
#pragma once
#include <cstdint>
#include <type_traits>

#include "launch.cuh"

namespace hn {
namespace cuda {

constexpr int kMaxEntries = 256;              // of one launch
constexpr size_t kMaxTableBytes = 32 * 1000;  // kernel parameters are limited to 32764 bytes

// The number of the entry that this block serves.
template <class Table>
__device__ __forceinline__ int32_t entry_of_block(const Table& t) {
  int32_t low = 0, high = t.count;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    (t.entry[middle].first_block <= int32_t(blockIdx.x) ? low : high) = middle;
  }
  return low;
}

// Fills the table and launches: once, for up to kMaxEntries layers with work. blocks_of(segment) -> blocks it needs, 0
// to leave it out; entry_of(segment, first block) -> its entry.
template <class Table, class Blocks, class Entry>
int launch_segments(void (*kernel)(Table), Table* t, int32_t segments, int threads, void* stream,
                    const Blocks& blocks_of, const Entry& entry_of) {
  static_assert(sizeof(Table) <= kMaxTableBytes, "the table must fit the kernel parameters");
  constexpr int32_t kRoom = int32_t(std::extent<decltype(t->entry)>::value);
  int64_t blocks = 0;
  int error = 0;
  t->count = 0;
  const auto flush = [&] {
    if (t->count > 0) error = launch(kernel, dim3(unsigned(blocks)), dim3(unsigned(threads)), 0, stream, *t);
    t->count = 0;
    blocks = 0;
  };
  for (int32_t s = 0; s < segments && error == 0; ++s) {
    const int64_t more = blocks_of(s);
    if (more == 0) continue;
    if (t->count == kRoom || blocks + more > 0x7fffffff) flush();
    if (error != 0) break;
    t->entry[t->count++] = entry_of(s, int32_t(blocks));
    blocks += more;
  }
  if (error == 0) flush();
  return error;
}

}  // namespace cuda
}  // namespace hn
