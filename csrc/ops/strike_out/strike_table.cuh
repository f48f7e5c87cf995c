// strike_table.cuh: what the launches of strike_out know: segments and groups as kernel parameters, and the workspace
// they share. Plain data and its host-side making; the work itself is in strike_out.cuh.
#pragma once
#include <algorithm>
#include <cstddef>

#include "../../base/launch.cuh"
#include "strike_out.h"

namespace hn {
namespace cuda {

constexpr int kMaxStruck = 256;       // segments of one batch: the table must fit the kernel parameters
constexpr int kStrikeDigitBits = 11;  // a key is searched 11, 11 and 10 bits at a time
constexpr int kStrikeBins = 1 << kStrikeDigitBits;
constexpr int kStrikeDigits = 3;

// Segments are cut into chunks by OIHW index; chunks are numbered through the whole table.
struct StruckSegment {
  const float* scores;
  uint8_t* flags;
  Layout layout;
  int32_t group, first_chunk;
};

struct StruckGroup {
  int32_t first_segment, segments;
  int32_t first_chunk, chunks;  // 0 chunks: nothing goes
  int32_t row;                  // of the thresholds
  uint32_t count;
};

// Of the ties at the threshold, all of the segments before `cut_segment` go, and in it those below the index `cut`.
enum class Quota : uint32_t {
  kOpen = 0,     // not known yet
  kNothing = 1,  // no entry goes
  kAllTies = 2,
  kCount = 3,  // `rank` of the ties go: their cut has to be found
  kCut = 4,
};

// Zero at the start.
struct StruckState {
  uint32_t finished;  // chunks of the current stage that are done
  uint32_t prefix;    // digits found so far; in the end the threshold
  uint32_t rank;      // rank among the keys that start with `prefix`; in the end how many ties go
  Quota quota;
  int32_t cut_segment, cut;  // kCut: within the group
  uint32_t bins[kStrikeBins];
};

struct StrikeTable {
  int32_t num_segments, num_groups, chunks;
  Order order;
  bool invert, exact;
  float* thresholds;
  StruckState* state;  // [num_groups]
  uint32_t* ties;      // [chunks]: active entries at the threshold
  StruckSegment segment[kMaxStruck];
  StruckGroup group[kMaxStruck];
};
static_assert(sizeof(StrikeTable) <= 32000, "kernel parameters are limited to 32764 bytes");

// A run of groups that one batch of launches serves.
struct StrikeBatch {
  int32_t first_group, end_group;
};

// The longest batch from `first_group` on that the table holds; at least one group.
inline StrikeBatch next_strike_batch(const StrikeOutParams& p, int32_t first_group) {
  StrikeBatch b{first_group, first_group + 1};
  int32_t room = kMaxStruck - p.groups[first_group].segments;
  while (b.end_group < p.num_groups && p.groups[b.end_group].segments <= room) {
    room -= p.groups[b.end_group++].segments;
  }
  return b;
}

inline size_t strike_state_bytes(int32_t groups) {
  return (size_t(uint32_t(groups)) * sizeof(StruckState) + 255) / 256 * 256;
}

template <int kChunk>
int32_t strike_chunks(const StrikeSegment& s) {
  return s.layout.n / kChunk + (s.layout.n % kChunk != 0);
}

template <int kChunk>
size_t strike_workspace(const StrikeOutParams& p) {
  size_t most = 0;
  for (int32_t g = 0; g < p.num_groups;) {
    const StrikeBatch b = next_strike_batch(p, g);
    size_t bytes = strike_state_bytes(b.end_group - b.first_group);
    for (; g < b.end_group; ++g) {
      for (int32_t s = 0; s < p.groups[g].segments; ++s) {
        bytes += size_t(strike_chunks<kChunk>(p.segments[p.groups[g].first_segment + s])) * sizeof(uint32_t);
      }
    }
    most = std::max(most, bytes);
  }
  return most;
}

// Fills the table for a batch. Refuses a group of more segments than it holds.
template <int kChunk>
int make_strike_table(const StrikeOutParams& p, StrikeBatch batch, StrikeTable* t) {
  t->num_groups = batch.end_group - batch.first_group;
  t->num_segments = t->chunks = 0;
  t->order = p.order;
  t->invert = p.invert;
  t->exact = p.exact;
  t->thresholds = p.thresholds;
  for (int32_t g = 0; g < t->num_groups; ++g) {
    const StrikeGroup& from = p.groups[batch.first_group + g];
    if (t->num_segments + from.segments > kMaxStruck || from.n >= int64_t(0xffffffff)) return kRefused;
    const int32_t first_chunk = t->chunks;
    t->group[g] = {t->num_segments, from.segments, first_chunk, 0, batch.first_group + g, uint32_t(from.count)};
    for (int32_t s = 0; s < from.segments; ++s) {
      const StrikeSegment& segment = p.segments[from.first_segment + s];
      t->segment[t->num_segments++] = {segment.scores, segment.flags, segment.layout, g, t->chunks};
      if (from.count > 0) t->chunks += strike_chunks<kChunk>(segment);
    }
    t->group[g].chunks = t->chunks - first_chunk;
  }
  auto* bytes = static_cast<unsigned char*>(p.workspace);
  t->state = reinterpret_cast<StruckState*>(bytes);
  t->ties = reinterpret_cast<uint32_t*>(bytes + strike_state_bytes(t->num_groups));
  return 0;
}

}  // namespace cuda
}  // namespace hn
