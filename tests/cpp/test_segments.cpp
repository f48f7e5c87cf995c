// test_segments.cpp: blocks of many layers, in a loop and in launches: each block is met once, by its own layer.
#include "base/segments.cuh"
#include "base/segments.h"
#include "device.h"

using namespace hn;
using hn::test::Buffer;

namespace {

const std::vector<int64_t> kBlocks = {0, 3, 0, 0, 1, 7, 2, 0, 5, 1, 0};

TEST(every_block_is_visited_once_whatever_the_ranges) {
  const cpu::SegmentBlocks blocks(int32_t(kBlocks.size()), [](int32_t s) { return kBlocks[size_t(s)]; });
  std::vector<std::pair<int32_t, int64_t>> want;
  for (size_t s = 0; s < kBlocks.size(); ++s) {
    for (int64_t b = 0; b < kBlocks[s]; ++b) want.push_back({int32_t(s), b});
  }
  CHECK_EQ(blocks.total(), int64_t(want.size()));
  for (int64_t step = 1; step <= blocks.total(); ++step) {
    std::vector<std::pair<int32_t, int64_t>> got;
    for (int64_t begin = 0; begin < blocks.total(); begin += step) {
      blocks.visit(begin, std::min(begin + step, blocks.total()), [&](int32_t s, int64_t b, int64_t end) {
        CHECK(b < end);
        for (; b < end; ++b) got.push_back({s, b});
      });
    }
    CHECK(got == want);
  }
  blocks.visit(blocks.total(), blocks.total(), [](int32_t, int64_t, int64_t) { CHECK(false); });
}

TEST(no_layers_have_no_blocks) {
  const cpu::SegmentBlocks none(0, [](int32_t) { return 1; });
  CHECK_EQ(none.total(), int64_t(0));
}

struct Entry {
  uint32_t* met;
  int32_t first_block;
};

template <int kRoom>
struct Table {
  int32_t count;
  Entry entry[kRoom];
};

template <int kRoom>
__global__ void meet_kernel(const __grid_constant__ Table<kRoom> t) {
  const Entry& entry = t.entry[cuda::entry_of_block(t)];
  if (threadIdx.x == 0) atomicAdd(entry.met + (int32_t(blockIdx.x) - entry.first_block), 1u);
}

template <int kRoom>
void check_launches() {
  std::vector<int64_t> begins = {0};
  for (const int64_t blocks : kBlocks) begins.push_back(begins.back() + blocks);
  const size_t total = size_t(begins.back());
  const auto met = test::same_in_every_order([&] {
    Buffer<uint32_t> out(std::vector<uint32_t>(total + 1, 0));
    Table<kRoom> t;
    const int error = cuda::launch_segments(
        &meet_kernel<kRoom>, &t, int32_t(kBlocks.size()), 32, nullptr, [](int32_t s) { return kBlocks[size_t(s)]; },
        [&](int32_t s, int32_t first_block) { return Entry{out.data() + begins[size_t(s)], first_block}; });
    CHECK_EQ(error, 0);
    return out.read();
  });
  std::vector<uint32_t> want(total, 1);
  want.push_back(0);
  CHECK_EQ(met, want);
}

TEST(every_block_is_launched_once_in_one_table_or_several) {
  check_launches<1>();
  check_launches<2>();
  check_launches<3>();
  check_launches<cuda::kMaxEntries>();
}

}  // namespace
