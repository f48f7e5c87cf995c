// select_table.cuh: what one launch of topk_select knows: the network's segments and groups as
// kernel parameters, and the workspace they share. Plain data and its host-side making; the work
// itself is in the other headers.
#pragma once
#include <algorithm>
#include <cstddef>

#include "../../base/launch.cuh"
#include "topk_select.h"

namespace hn {
namespace cuda {

constexpr int kSelectChunk = 8192;  // scores: 32 KB, 8 loads of 16 bytes a thread
constexpr int kMaxSegments = 256;   // of one launch: the table must fit the kernel parameters
constexpr int kDigitBits = 11;      // a key is searched 11, 11 and 10 bits at a time
constexpr int kBins = 1 << kDigitBits;
constexpr int kSubBits = 9;  // the scan of a bracket counts by the top 9 bits of its width
constexpr int kSubBins = 1 << kSubBits;

// What happens to a group next. It starts at kFirstLook and goes up, past what it does not need.
enum Stage : uint32_t {
  kFirstLook = 0,  // warm: scan the bracket; cold: count the top digit
  kDigit0 = 1,     // count the top digit after a missed bracket
  kDigit1 = 2,
  kDigit2 = 3,
  kTieCount = 4,  // count the keys equal to the threshold in OIHW order
  kDone = 5,
};

// How the first look ended; decides the next width.
enum class Outcome : uint32_t { kCold = 0, kFound = 1, kMissed = 2, kOverflowed = 3 };

// Segments are cut into chunks; chunks are numbered through the whole table.
struct SegmentEntry {
  const float* scores;
  Layout layout;
  int32_t group;
  int32_t first_chunk;
  int32_t row;  // of hint and out
};

struct GroupEntry {
  int32_t first_segment, segments;
  int32_t first_chunk, chunks;
  uint32_t n, rank;  // elements; how many are pruned, which is the rank of the smallest kept key

  // All or none are kept: nothing to search.
  HN_HD bool settled() const { return rank == 0 || rank == n; }
};

// Zero at the start of a launch.
struct GroupState {
  uint32_t stage;       // published last
  uint32_t finished;    // chunks of the current stage that are done
  uint32_t below;       // keys below the bracket
  uint32_t candidates;  // keys inside it that were collected
  uint32_t overflowed;  // chunks that held more than they may
  Outcome outcome;
  uint32_t prefix;  // digits found so far; in the end the threshold
  uint32_t rank;    // rank among the keys that start with `prefix`; in the end the ties to prune
  uint32_t bins[kBins];
};

// What a step counted of a group's bracket; zero before and after.
struct GroupCount {
  uint32_t below, candidates;  // as in GroupState; candidates past the list's room are counted alone
  uint32_t bins[kSubBins];
};

// Where a step puts what it counts for all groups, and which keys are where as in SelectTable.
struct CountTable {
  uint32_t* counted;  // one word: a step did count; null: nothing is counted
  GroupCount* group;
  uint32_t *candidate, *place;
};

// Zero at the start of a launch.
struct Control {
  uint32_t ticket;         // next work item
  uint32_t looked;         // groups past their first look; those with work left add 1 << 16 as well
  uint32_t ready;          // all are, and the fields below are valid
  uint32_t missed_chunks;  // of groups whose bracket missed: the first of the active groups
  uint32_t active_chunks;
  uint32_t active_groups;
  uint32_t active_group[kMaxSegments];
  uint32_t active_begin[kMaxSegments];  // chunks before it in the list
};

struct SelectTable {
  int32_t num_segments, num_groups, chunks;
  const Selection* hint;
  Selection* out;
  bool keep_ties;
  Control* control;
  GroupState* state;    // [num_groups]
  uint32_t* ties;       // [chunks]: keys equal to the threshold
  uint32_t* candidate;  // [chunks * kCapacity], a group's keys from first_chunk * kCapacity on
  uint32_t* place;      // of each candidate: (chunk - first_chunk) * kChunk + place in its chunk
  CountTable counts;
  SegmentEntry segment[kMaxSegments];
  GroupEntry group[kMaxSegments];  // largest first: long finishes overlap the rest of the scan
};
static_assert(sizeof(SelectTable) <= 32000, "kernel parameters are limited to 32764 bytes");

// Candidates a whole chunk may hold: `candidate_capacity`, at compile time.
template <int kChunk>
constexpr int kCapacity = kChunk / 8 + 64;

// Scores between a 16-byte boundary and the first one. Chunks are cut from that boundary on, so
// that all their vectors are aligned.
HN_HD uint32_t skew_of(const float* scores) { return uint32_t(reinterpret_cast<uintptr_t>(scores) / 4 % 4); }

constexpr int64_t chunks_of(int64_t n, int64_t skew, int chunk) {
  return std::max<int64_t>(1, (n + skew + chunk - 1) / chunk);
}

constexpr size_t aligned_up(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Places of the workspace's parts, in bytes.
struct WorkspaceLayout {
  size_t state, ties, candidate, place, end;
};

template <int kChunk>
WorkspaceLayout workspace_layout(int64_t groups, int64_t chunks) {
  static_assert(kCapacity<kChunk> % 4 == 0, "a group's candidates start on 16 bytes");
  const size_t keys = size_t(chunks) * kCapacity<kChunk> * sizeof(uint32_t);
  WorkspaceLayout w{};
  w.state = aligned_up(sizeof(Control));
  w.ties = w.state + aligned_up(size_t(groups) * sizeof(GroupState));
  w.candidate = w.ties + aligned_up(size_t(chunks) * sizeof(uint32_t));
  w.place = w.candidate + aligned_up(keys);
  w.end = w.place + aligned_up(keys);
  return w;
}

// The places within TopkSelectParams::counts.
template <int kChunk>
CountTable count_table(void* counts, int64_t groups, int64_t chunks, size_t* bytes = nullptr) {
  const size_t group = 256, candidate = group + aligned_up(size_t(groups) * sizeof(GroupCount));
  const size_t keys = aligned_up(size_t(chunks) * kCapacity<kChunk> * sizeof(uint32_t));
  if (bytes != nullptr) *bytes = candidate + 2 * keys;
  if (counts == nullptr) return {};
  auto* at = static_cast<unsigned char*>(counts);
  return {reinterpret_cast<uint32_t*>(at), reinterpret_cast<GroupCount*>(at + group),
          reinterpret_cast<uint32_t*>(at + candidate), reinterpret_cast<uint32_t*>(at + candidate + keys)};
}

// A run of groups that one launch serves.
struct Batch {
  int32_t first_group, end_group;
};

// The longest batch from `first_group` on that the table holds; at least one group.
inline Batch next_batch(const TopkSelectParams& p, int32_t first_group) {
  Batch b{first_group, first_group + 1};
  int32_t room = kMaxSegments - p.groups[first_group].segments;
  while (b.end_group < p.num_groups && p.groups[b.end_group].segments <= room) {
    room -= p.groups[b.end_group++].segments;
  }
  return b;
}

// The most chunks that a batch may have.
template <int kChunk>
int64_t most_chunks(const TopkSelectParams& p, Batch b) {
  int64_t chunks = 0;
  for (int32_t g = b.first_group; g < b.end_group; ++g) {
    const SelectGroup& group = p.groups[g];
    for (int32_t s = 0; s < group.segments; ++s) {
      chunks += chunks_of(p.segments[group.first_segment + s].layout.n, 3, kChunk);
    }
  }
  return chunks;
}

template <int kChunk>
size_t select_workspace(const TopkSelectParams& p) {
  size_t most = 0;
  for (int32_t g = 0; g < p.num_groups;) {
    const Batch b = next_batch(p, g);
    most = std::max(most, workspace_layout<kChunk>(b.end_group - b.first_group, most_chunks<kChunk>(p, b)).end);
    g = b.end_group;
  }
  return most;
}

template <int kChunk>
size_t select_counts(const TopkSelectParams& p) {
  const Batch b = next_batch(p, 0);
  if (b.end_group != p.num_groups || p.groups[0].segments > kMaxSegments) return 0;
  size_t bytes = 0;
  count_table<kChunk>(nullptr, p.num_groups, most_chunks<kChunk>(p, b), &bytes);
  return bytes;
}

// Fills the table for a batch. Refuses a group of more than kMaxSegments segments or 2^32 scores.
template <int kChunk>
int make_table(const TopkSelectParams& p, Batch batch, SelectTable* t) {
  t->num_groups = batch.end_group - batch.first_group;
  t->num_segments = t->chunks = 0;
  t->hint = p.hint;
  t->out = p.out;
  t->keep_ties = p.keep_ties;
  int32_t by_size[kMaxSegments];
  for (int32_t g = 0; g < t->num_groups; ++g) by_size[g] = batch.first_group + g;
  std::stable_sort(by_size, by_size + t->num_groups,
                   [&](int32_t a, int32_t b) { return p.groups[a].n > p.groups[b].n; });
  for (int32_t g = 0; g < t->num_groups; ++g) {
    const SelectGroup& from = p.groups[by_size[g]];
    if (t->num_segments + from.segments > kMaxSegments) return kRefused;
    GroupEntry& to = t->group[g];
    to = {t->num_segments, from.segments, t->chunks, 0, uint32_t(from.n), uint32_t(from.n - from.k)};
    int64_t chunks = 0;
    for (int32_t s = 0; s < from.segments; ++s) {
      const SelectSegment& segment = p.segments[from.first_segment + s];
      t->segment[t->num_segments++] = {segment.scores, segment.layout, g, t->chunks + int32_t(chunks),
                                       from.first_segment + s};
      if (!to.settled()) chunks += chunks_of(segment.layout.n, skew_of(segment.scores), kChunk);
    }
    if (from.n >= int64_t(0xffffffff) || chunks * kChunk > int64_t(0xffffffff)) return kRefused;
    to.chunks = int32_t(to.settled() ? 1 : chunks);
    t->chunks += to.chunks;
  }
  const WorkspaceLayout w = workspace_layout<kChunk>(t->num_groups, t->chunks);
  auto* bytes = static_cast<unsigned char*>(p.workspace);
  t->control = reinterpret_cast<Control*>(bytes);
  t->state = reinterpret_cast<GroupState*>(bytes + w.state);
  t->ties = reinterpret_cast<uint32_t*>(bytes + w.ties);
  t->candidate = reinterpret_cast<uint32_t*>(bytes + w.candidate);
  t->place = reinterpret_cast<uint32_t*>(bytes + w.place);
  t->counts = count_table<kChunk>(p.counts, t->num_groups, t->chunks);
  return 0;
}

}  // namespace cuda
}  // namespace hn
