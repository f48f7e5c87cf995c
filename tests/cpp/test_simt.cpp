// test_simt.cpp: the SIMT shim itself: what it runs, what it refuses, and what it must not let
// pass.
#include <numeric>

#include "base/launch.cuh"
#include "device.h"

using hn::launch;
using hn::test::Buffer;
using hn::test::in_every_order;
using hn::test::same_in_every_order;

namespace {

// --- Indices and coverage.

__global__ void index_kernel(uint32_t* out) {
  const uint32_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const uint32_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const uint32_t threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] += block * 10000 + thread;
}

TEST(every_thread_of_every_block_runs_once) {
  for (const dim3 shape : {dim3(1), dim3(33), dim3(8, 4, 3), dim3(1024), dim3(1, 1, 64)}) {
    const dim3 grid(3, 2, 4);
    const uint32_t threads = shape.x * shape.y * shape.z, blocks = 24;
    in_every_order([&] {
      Buffer<uint32_t> out(std::vector<uint32_t>(blocks * threads, 0));
      CHECK_EQ(launch(index_kernel, grid, shape, 0, nullptr, out.data()), 0);
      std::vector<uint32_t> expected;
      for (uint32_t b = 0; b < blocks; ++b) {
        for (uint32_t t = 0; t < threads; ++t) expected.push_back(b * 10000 + t);
      }
      CHECK_EQ(out.read(), expected);
    });
  }
}

__global__ void arrival_kernel(uint32_t* next, uint32_t* out) {
  out[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

std::vector<uint32_t> arrivals(simt::Order order) {
  simt::set_order(order);
  Buffer<uint32_t> next(std::vector<uint32_t>(1, 0)), out(3 * 5);
  CHECK_EQ(launch(arrival_kernel, 3, 5, 0, nullptr, next.data(), out.data()), 0);
  simt::set_order({});
  return out.read();
}

TEST(the_order_is_the_one_that_was_set) {
  std::vector<uint32_t> forward(15);
  std::iota(forward.begin(), forward.end(), 0);
  CHECK_EQ(arrivals({}), forward);
  CHECK_EQ(arrivals({simt::Order::kReversed, 0}), std::vector<uint32_t>(forward.rbegin(), forward.rend()));
  const auto one = arrivals({simt::Order::kShuffled, 1}), two = arrivals({simt::Order::kShuffled, 2});
  CHECK(one != forward);
  CHECK(one != two);
  CHECK_EQ(arrivals({simt::Order::kShuffled, 1}), one);
  auto sorted = one;
  std::sort(sorted.begin(), sorted.end());
  CHECK_EQ(sorted, forward);
}

// --- What the driver refuses.

__global__ void empty_kernel() {}

TEST(launch_refuses_what_the_driver_refuses) {
  CHECK_EQ(launch(empty_kernel, 1, 1024, 0, nullptr), 0);
  CHECK_EQ(launch(empty_kernel, 1, 1025, 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, 1, dim3(32, 33), 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, 1, dim3(1, 1, 65), 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, 1, 0, 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, 0, 32, 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, dim3(1, 65536), 32, 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, dim3(1, 1, 65536), 32, 0, nullptr), 9);
  CHECK_EQ(launch(empty_kernel, dim3(1, 65535), 1, 0, nullptr), 0);
  CHECK_EQ(launch(empty_kernel, 1, 32, 227 * 1024, nullptr), 0);
  CHECK_EQ(launch(empty_kernel, 1, 32, 227 * 1024 + 1, nullptr), 1);
}

__global__ void nested_kernel() { launch(empty_kernel, 1, 1, 0, nullptr); }

TEST(a_kernel_does_not_launch) {
  CHECK_THROWS(simt::Error, "launch: expected host code", launch(nested_kernel, 1, 1, 0, nullptr));
}

// --- Shared memory.

template <int kBytes>
__global__ void static_shared_kernel(uint8_t* out) {
  HN_SHARED(uint8_t, here, kBytes);
  HN_DYNAMIC_SHARED(uint8_t, there);
  out[0] = here[kBytes - 1];
  out[1] = there[0];
}

TEST(static_and_dynamic_shared_memory_share_the_limits) {
  Buffer<uint8_t> out(2);
  CHECK_EQ(launch(static_shared_kernel<16384>, 1, 1, 211 * 1024, nullptr, out.data()), 0);
  CHECK_EQ(launch(static_shared_kernel<16384>, 1, 1, 32 * 1024, nullptr, out.data()), 0);
  CHECK_THROWS(simt::Error, "do not fit", launch(static_shared_kernel<49153>, 1, 1, 16, nullptr, out.data()));
  CHECK_THROWS(simt::Error, "do not fit", launch(static_shared_kernel<16385>, 1, 1, 32 * 1024, nullptr, out.data()));
  CHECK_THROWS(simt::Error, "do not fit", launch(static_shared_kernel<16385>, 1, 1, 211 * 1024, nullptr, out.data()));
}

__global__ void uninitialised_kernel(float* out) {
  HN_SHARED(float, table, 32);
  HN_DYNAMIC_SHARED(float, more);
  out[4 * blockIdx.x] = table[0];
  out[4 * blockIdx.x + 1] = more[31];
  table[0] = more[31] = 1.0f;  // the next block must not see these
  out[4 * blockIdx.x + 2] = table[0];
  out[4 * blockIdx.x + 3] = more[31];
}

TEST(shared_memory_is_poisoned_in_every_block) {
  std::vector<uint8_t> seen;
  in_every_order([&] {
    Buffer<float> out(8);
    CHECK_EQ(launch(uninitialised_kernel, 2, 1, 128, nullptr, out.data()), 0);
    float poison;
    std::memset(&poison, simt::poison_byte(), sizeof poison);
    CHECK_EQ(out.read(), (std::vector<float>{poison, poison, 1, 1, poison, poison, 1, 1}));
    CHECK(std::find(seen.begin(), seen.end(), simt::poison_byte()) == seen.end());
    seen.push_back(simt::poison_byte());
  });
}

TEST(reading_uninitialised_shared_memory_changes_with_the_order) {
  CHECK_THROWS(hn::test::Failure, "reversed order", same_in_every_order([] {
                 Buffer<float> out(8);
                 launch(uninitialised_kernel, 2, 1, 128, nullptr, out.data());
                 return out.read();
               }));
}

template <class T>
__device__ T* scratch_of_a_function() {
  HN_SHARED(T, scratch, 4);
  return scratch;
}

__global__ void sites_kernel(uint32_t* out) {
  HN_SHARED(uint32_t, a, 4);
  HN_SHARED(uint32_t, b, 4);
  uint32_t* const c = scratch_of_a_function<uint32_t>();
  float* const d = scratch_of_a_function<float>();
  if (threadIdx.x == 1) {
    a[0] = 1;
    b[0] = 2;
    c[0] = 3;
    d[0] = 4.0f;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    out[0] = a[0];
    out[1] = b[0];
    out[2] = scratch_of_a_function<uint32_t>()[0];
    out[3] = uint32_t(d[0]);
  }
}

TEST(each_shared_array_is_one_for_the_block) {
  in_every_order([] {
    Buffer<uint32_t> out(4);
    CHECK_EQ(launch(sites_kernel, 1, 2, 0, nullptr, out.data()), 0);
    CHECK_EQ(out.read(), (std::vector<uint32_t>{1, 2, 3, 4}));
  });
}

// --- Races.

__global__ void reverse_kernel(const int* in, int* out, bool barrier) {
  HN_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = in[threadIdx.x];
  if (barrier) __syncthreads();
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

std::vector<int> reversed(int n, bool barrier) {
  std::vector<int> x(n);
  std::iota(x.begin(), x.end(), 7);
  return same_in_every_order([&] {
    Buffer<int> in(x), out(n);
    CHECK_EQ(launch(reverse_kernel, 1, n, n * sizeof(int), nullptr, in.data(), out.data(), barrier), 0);
    return out.read();
  });
}

TEST(a_missing_barrier_gives_different_bits_in_different_orders) {
  for (int n : {2, 31, 32, 33, 255, 1024}) {
    const auto r = reversed(n, true);
    CHECK_EQ(r.front(), n + 6);
    CHECK_EQ(r.back(), 7);
    CHECK_THROWS(hn::test::Failure, "order", reversed(n, false));
  }
}

// Warps hand a value round; without the second barrier a warp that runs ahead overwrites its own.
__global__ void hand_round_kernel(uint32_t* out, bool barrier) {
  HN_SHARED(uint32_t, tile, 32);
  const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  uint32_t v = warp;
  for (uint32_t round = 0; round < 3; ++round) {
    if (lane == 0) tile[warp] = v;
    __syncthreads();
    for (int i = 0; i < 5; ++i) __syncwarp();
    v = tile[(warp + 1) % warps] + 10;
    if (barrier) __syncthreads();
  }
  out[threadIdx.x] = v;
}

std::vector<uint32_t> handed_round(int warps, bool barrier) {
  return same_in_every_order([&] {
    Buffer<uint32_t> out(size_t(32 * warps));
    CHECK_EQ(launch(hand_round_kernel, 1, 32 * warps, 0, nullptr, out.data(), barrier), 0);
    return out.read();
  });
}

TEST(a_warp_that_runs_ahead_is_seen) {
  for (int warps : {2, 3, 32}) {
    const auto out = handed_round(warps, true);
    for (int t = 0; t < 32 * warps; ++t) {
      CHECK_EQ(out[size_t(t)], uint32_t((t / 32 + 3) % warps + 30));
    }
    CHECK_THROWS(hn::test::Failure, "order", handed_round(warps, false));
  }
}

__global__ void last_writer_kernel(uint32_t* out) { *out = blockIdx.x; }

TEST(a_race_between_blocks_gives_different_bits) {
  CHECK_THROWS(hn::test::Failure, "order", same_in_every_order([] {
                 Buffer<uint32_t> out(1);
                 launch(last_writer_kernel, 7, 1, 0, nullptr, out.data());
                 return out.read();
               }));
}

}  // namespace
