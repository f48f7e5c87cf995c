// topk_select.cuh: the persistent kernel that finds all thresholds of a network in one launch.
//
// Work is cut into (stage, chunk) items, handed out by one counter in an order in which every item
// depends on earlier ones only: first a look at every chunk, then, for groups that are not done,
// digit by digit of a radix search, then a count of ties. A block that takes an item of a later
// stage waits until its group has got there. Earlier items are all in the hands of running blocks,
// and the earliest unfinished one waits for nobody: so there is progress whatever number of blocks
// runs at a time, without a cooperative launch, and a graph can capture the launch.
//
// A warm network costs one pass: 4 bytes read a score, 8 written and 4 read again a candidate; none where a step counted.
#pragma once
#include "select_publish.cuh"

namespace hn {
namespace cuda {

constexpr int kSelectThreads = 256;
constexpr int kSelectBlocks = 4;  // a multiprocessor: 64 KB of loads are in flight on each

// One thread: the item of a ticket, or of a later one where its group needs no such stage, waiting
// until it may be worked on. Stage kDone: there is nothing more to do.
__device__ __forceinline__ Item next_item(const SelectTable& t, uint32_t ticket, bool counted) {
  Control* c = t.control;
  const uint32_t looks = uint32_t(counted ? t.num_groups : t.chunks);
  for (;; ticket = atomicAdd(&c->ticket, 1u)) {
    uint32_t number = ticket;
    if (number < looks) {
      if (counted) return counted_item(t, int32_t(number));
      return make_item(t, kFirstLook, segment_of(t, int32_t(number)), int32_t(number));
    }
    while (load_acquire(&c->ready) == 0) __nanosleep(100);
    const uint32_t missed = c->missed_chunks, active = c->active_chunks;
    number -= looks;
    uint32_t stage = kDigit0;
    if (number >= missed) {
      number -= missed;
      if (active == 0 || number / active >= uint32_t(kDone - kDigit1)) {
        return {kDone, Work::kNone, 0, 0, 0, {0, 0, 0}};
      }
      stage = kDigit1 + number / active;
      number %= active;
    }
    int32_t low = 0, high = int32_t(c->active_groups);
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      (c->active_begin[middle] <= number ? low : high) = middle;
    }
    const int32_t group = int32_t(c->active_group[low]);
    const int32_t chunk = t.group[group].first_chunk + int32_t(number - c->active_begin[low]);
    uint32_t reached = load_acquire(&t.state[group].stage);
    while (reached < stage) {
      __nanosleep(100);
      reached = load_acquire(&t.state[group].stage);
    }
    if (reached == stage) return make_item(t, Stage(stage), segment_of(t, chunk), chunk);
  }
}

// A block owns one item at a time and adds what it finds to the group's counters. The block that
// completes the count of finished chunks sees what all of them found, and settles the stage alone.
template <Order kOrder, int kThreads, int kChunk>
__global__ void __launch_bounds__(kThreads, kSelectBlocks) topk_select_kernel(const __grid_constant__ SelectTable t) {
  constexpr int kWords = kScanWords<kChunk> > kFinishWords<kThreads> ? kScanWords<kChunk> : kFinishWords<kThreads>;
  HN_SHARED(uint64_t, aligned_space, (kWords + 1) / 2);
  HN_SHARED(uint32_t, scratch, kScratchWords<kThreads>);
  HN_SHARED(Item, shared_item, 1);
  HN_SHARED(uint32_t, ticket, 1);
  HN_SHARED(Verdict, verdict, 1);
  uint32_t* const space = reinterpret_cast<uint32_t*>(aligned_space);

  const bool counted = t.counts.counted != nullptr && *t.counts.counted != 0;
  if (threadIdx.x == 0) *ticket = atomicAdd(&t.control->ticket, 1u);
  for (;;) {
    if (threadIdx.x == 0) *shared_item = next_item(t, *ticket, counted);
    __syncthreads();
    const Item& item = *shared_item;
    if (item.stage == kDone) return;
    switch (item.work) {
      case Work::kNone:
      case Work::kCounted: break;
      case Work::kBracket: scan_bracket<kOrder, kThreads, kChunk>(t, item, space, scratch); break;
      case Work::kDigit: count_digit<kOrder, kThreads, kChunk>(t, item, space); break;
      case Work::kTies: count_ties<kOrder, kThreads, kChunk>(t, item, scratch); break;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const uint32_t next = atomicAdd(&t.control->ticket, 1u);  // on its way during the other
      const uint32_t finished = atomic_add_acq_rel(&t.state[item.group].finished, 1u) + 1;
      scratch[0] = finished == (item.work == Work::kCounted ? 1u : uint32_t(t.group[item.group].chunks));
      *ticket = next;
    }
    __syncthreads();
    const bool last = scratch[0] != 0;
    __syncthreads();
    if (!last) continue;
    const auto say = [&](const Verdict& v) {  // all threads hold the same one
      if (threadIdx.x == 0) *verdict = v;
    };
    switch (item.work) {
      case Work::kNone: say(settle_trivial(t.group[item.group])); break;
      case Work::kCounted:
      case Work::kBracket: say(settle_bracket<kThreads, kChunk>(t, item, space, scratch)); break;
      case Work::kDigit: say(settle_digit<kThreads>(t, item, scratch)); break;
      case Work::kTies: say(settle_ties<kOrder, kThreads, kChunk>(t, item, scratch)); break;
    }
    __syncthreads();
    if (item.work == Work::kCounted) clear_counted<kThreads>(t, item.group);
    if (verdict->next == kDone) write_rows<kThreads>(t, item, *verdict);
    publish<kThreads>(t, item, verdict->next, scratch);
    __syncthreads();
  }
}

// The op with any block and chunk size: a memset and a launch for each batch of groups.
template <int kThreads, int kChunk>
int select_in_chunks(const TopkSelectParams& p, void* stream) {
  int processors = 0;
  int error = multiprocessors(&processors);
  for (int32_t first = 0; first < p.num_groups && error == 0;) {
    const Batch batch = next_batch(p, first);
    SelectTable table;
    error = make_table<kChunk>(p, batch, &table);
    if (error != 0) break;
    error = fill_zero(p.workspace, workspace_layout<kChunk>(table.num_groups, table.chunks).ties, stream);
    if (error != 0) break;
    const auto kernel = p.order == Order::kMagnitude ? &topk_select_kernel<Order::kMagnitude, kThreads, kChunk>
                                                     : &topk_select_kernel<Order::kValue, kThreads, kChunk>;
    const int blocks = std::min(table.chunks, processors * kSelectBlocks);
    error = launch(kernel, dim3(unsigned(blocks)), kThreads, 0, stream, table);
    first = batch.end_group;
  }
  return error;
}

}  // namespace cuda
}  // namespace hn
