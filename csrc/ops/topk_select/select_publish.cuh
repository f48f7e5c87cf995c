// select_publish.cuh: what the block that settled a group's stage does last: write the rows, and
// tell the waiting blocks what comes next.
#pragma once
#include "select_finish.cuh"

namespace hn {
namespace cuda {

// One row a segment, one segment a thread.
template <int kThreads>
__device__ __forceinline__ void write_rows(const SelectTable& t, const Item& item, const Verdict& v) {
  const GroupEntry& group = t.group[item.group];
  const GroupState* state = t.state + item.group;
  for (int i = int(threadIdx.x); i < group.segments; i += kThreads) {
    const SegmentEntry& s = t.segment[group.first_segment + i];
    const Selection hint = t.hint == nullptr ? Selection{0, 0, 0, 0} : t.hint[s.row];
    Selection row;
    row.threshold = v.threshold;
    row.cut = t.keep_ties ? 0 : i < v.cut_segment ? s.layout.n : (i == v.cut_segment ? v.cut : 0);
    if (group.settled()) {
      row.width = hint.width != 0 ? hint.width : kFirstWidth;
      row.cold = hint.cold;
    } else {
      const Outcome outcome = state->outcome;
      const int64_t candidates = outcome == Outcome::kFound ? int64_t(state->candidates) : -1;
      row.width = next_width(hint.width, outcome == Outcome::kMissed, outcome == Outcome::kOverflowed, candidates,
                             int64_t(group.n));
      row.cold = hint.cold + (outcome == Outcome::kFound ? 0 : 1);
    }
    t.out[s.row] = row;
  }
}

// The whole block: lists the groups with work left, missed brackets first, and frees the waiters.
template <int kThreads>
__device__ __forceinline__ void open_next_stages(const SelectTable& t, bool pending, uint32_t* scratch) {
  Control* c = t.control;
  if (pending) {
    uint32_t entries = 0, chunks = 0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int base = 0; base < t.num_groups; base += kThreads) {
        const int g = base + int(threadIdx.x);
        const uint32_t stage = g < t.num_groups ? t.state[g].stage : uint32_t(kDone);
        const bool mine = pass == 0 ? stage == kDigit0 : stage != kDigit0 && stage != kDone;
        const uint32_t size = mine ? uint32_t(t.group[g].chunks) : 0u;
        const Scan<uint32_t> entry = block_scan<kThreads>(uint32_t(mine), scratch);
        const Scan<uint32_t> begin = block_scan<kThreads>(size, scratch);
        if (mine) {
          c->active_group[entries + entry.before] = uint32_t(g);
          c->active_begin[entries + entry.before] = chunks + begin.before;
        }
        entries += entry.total;
        chunks += begin.total;
      }
      if (pass == 0 && threadIdx.x == 0) c->missed_chunks = chunks;
    }
    if (threadIdx.x == 0) {
      c->active_groups = entries;
      c->active_chunks = chunks;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) store_release(&c->ready, 1u);
}

// The whole block, after its last write to the group: the group goes on to `next`.
template <int kThreads>
__device__ __forceinline__ void publish(const SelectTable& t, const Item& item, Stage next, uint32_t* scratch) {
  GroupState* state = t.state + item.group;
  __syncthreads();
  if (threadIdx.x == 0) {
    state->finished = 0;
    store_release(&state->stage, uint32_t(next));
    if (item.stage == kFirstLook) {
      const uint32_t mine = next == kDone ? 1u : 1u + (1u << 16);
      const uint32_t looked = atomic_add_acq_rel(&t.control->looked, mine) + mine;
      scratch[0] = (looked & 0xffffu) == uint32_t(t.num_groups) ? 1u + (looked >> 16) : 0u;
    }
  }
  if (item.stage != kFirstLook) return;
  __syncthreads();
  const uint32_t last = scratch[0];
  __syncthreads();
  if (last != 0) open_next_stages<kThreads>(t, last > 1, scratch);
}

}  // namespace cuda
}  // namespace hn
