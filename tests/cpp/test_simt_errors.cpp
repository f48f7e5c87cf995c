// test_simt_errors.cpp: what the SIMT shim must not let pass: wrong meetings, endless spins, overflowing
// stacks, misaligned access; and the teeth of the test framework.
#include "base/memory.cuh"
#include "device.h"

using hn::launch;
using hn::test::Buffer;
using hn::test::in_every_order;

namespace {

// --- Deadlocks and undefined meetings: errors that name the place.

__global__ void divergent_barrier_kernel(int kind) {
  if (kind == 0 && threadIdx.x < 32) __syncwarp(0x3u << (threadIdx.x & 30u));
  if (kind == 1 && threadIdx.x == 5) return;
  if (kind == 1) __syncwarp();
  if (kind == 2) {
    if (threadIdx.x < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  }
  if (kind == 3) {
    if (threadIdx.x == 3) __syncwarp();
    __syncthreads();
  }
  if (kind == 4) __syncwarp(0xfffffffeu);
  if (kind == 5) {
    if (threadIdx.x % 2) __ballot_sync(0xffffffffu, 1);
    if (threadIdx.x % 2 == 0) __shfl_sync(0xffffffffu, 1, 0);
  }
  if (kind == 6) __shfl_sync(0x0000ffffu << (threadIdx.x & 16u), 1, 5, 32);
  if (kind == 7) {
    if (threadIdx.x == 0) {
      __syncthreads_or(1);
    } else {
      __syncthreads();
    }
  }
  if (kind == 8 && threadIdx.x >= 40) return;
  if (kind == 8) __syncthreads();  // the living ones meet: as on the GPU
  if (kind == 9 && threadIdx.x < 16) __syncwarp(0x0000ffffu);
  if (kind == 9 && threadIdx.x >= 16 && threadIdx.x < 32) __syncwarp(0xffff0001u);
}

int meet_wrongly(int kind, int threads = 64) { return launch(divergent_barrier_kernel, 2, threads, 0, nullptr, kind); }

TEST(meetings_that_cannot_happen_are_errors) {
  in_every_order([] {
    CHECK_EQ(meet_wrongly(0), 0);
    CHECK_THROWS(simt::Error, "lane 5, which has left", meet_wrongly(1));
    CHECK_THROWS(simt::Error, "__syncthreads at ", meet_wrongly(2));
    CHECK_THROWS(simt::Error, "deadlock", meet_wrongly(3));
    CHECK_THROWS(simt::Error, "not in its own mask", meet_wrongly(4));
    CHECK_THROWS(simt::Error, "__ballot_sync", meet_wrongly(5));
    CHECK_THROWS(simt::Error, "reads lane 5, which is not in the mask", meet_wrongly(6));
    CHECK_THROWS(simt::Error, "__syncthreads", meet_wrongly(7));
    CHECK_EQ(meet_wrongly(8), 0);
    CHECK_THROWS(simt::Error, "deadlock", meet_wrongly(9, 32));
    CHECK_THROWS(simt::Error, "lane 16, which the block does not have", meet_wrongly(3, 16));
  });
}

TEST(a_deadlock_names_block_threads_and_lines) {
  try {
    meet_wrongly(3);
  } catch (const simt::Error& e) {
    for (const char* part : {"block (0,0,0)", "thread (3,0,0) waits in __syncwarp at ", "test_simt_errors.cpp:",
                             "with mask 0xffffffff for lane 0", "thread (0,0,0) waits in __syncthreads"}) {
      const std::string what = e.what();
      if (what.find(part) == std::string::npos) CHECK_EQ(what, std::string(part));
    }
    return;
  }
  CHECK(false);
}

TEST(a_launch_after_a_failure_works) {
  for (int i = 0; i < 3; ++i) CHECK_THROWS(simt::Error, "deadlock", meet_wrongly(3));
  CHECK_EQ(meet_wrongly(0, 1024), 0);
}

__global__ void trap_kernel() {
  if (threadIdx.x == 2) __trap();
}

TEST(a_trap_names_its_thread) {
  CHECK_THROWS(simt::Error, "block (0,0,0), thread (2,0,0): __trap", launch(trap_kernel, 1, 4, 0, nullptr));
}

// --- Spinning.

__global__ void spin_kernel(uint32_t* flag, bool publish) {
  if (threadIdx.x == 0) {
    while (hn::load_acquire(flag) == 0) {
    }
  } else if (threadIdx.x == 1) {
    for (int i = 0; i < 100; ++i) __nanosleep(20);
    if (publish) hn::store_release(flag, 1);
  }
  __syncthreads();
}

TEST(a_spin_ends_when_the_word_comes_and_is_an_error_when_not) {
  in_every_order([] {
    Buffer<uint32_t> flag(std::vector<uint32_t>(1, 0));
    CHECK_EQ(launch(spin_kernel, 1, 64, 0, nullptr, flag.data(), true), 0);
  });
  Buffer<uint32_t> flag(std::vector<uint32_t>(1, 0));
  CHECK_THROWS(simt::Error, "endless spin", launch(spin_kernel, 1, 64, 0, nullptr, flag.data(), false));
}

// --- Stacks.

__device__ int deep(int n) {
  volatile char frame[512];
  frame[0] = char(n);
  return n == 0 ? 0 : deep(n - 1) + frame[0];
}
__global__ void deep_kernel(int depth, int* out) { out[threadIdx.x] = deep(depth); }

TEST(a_stack_that_nearly_overflows_is_reported) {
  Buffer<int> out(2);
  CHECK_EQ(launch(deep_kernel, 1, 2, 0, nullptr, 16, out.data()), 0);
  int depth = 16;  // frames differ in size: deepen until the red zone at the low end is written
  const auto descend = [&] {
    for (; depth < 4096; ++depth) launch(deep_kernel, 1, 2, 0, nullptr, depth, out.data());
  };
  CHECK_THROWS(simt::Error, "stack overflow", descend());
}

// --- Alignment.

__global__ void misaligned_kernel(const float* in, float* out, int kind) {
  HN_SHARED(float, tile, 8);
  if (kind == 0) out[0] = hn::load_vec<4>(in)[0];
  if (kind == 1) hn::store_vec(out, hn::Vec<float, 4>{});
  if (kind == 2) out[0] = hn::load_vec<2>(in)[0];
  if (kind == 3) {
    hn::cp_async<16>(tile, in);
    hn::cp_async_commit();
    hn::cp_async_wait<0>();
  }
  if (kind == 4) atomicAdd(reinterpret_cast<uint32_t*>(reinterpret_cast<char*>(out) + 2), 1);
}

TEST(misaligned_access_is_an_error) {
  Buffer<float> x(16);
  for (int offset : {1, 2, 3}) {
    CHECK_THROWS(simt::Error, "load_vec: expected an address aligned to 16 bytes",
                 launch(misaligned_kernel, 1, 1, 0, nullptr, x.data() + offset, x.data(), 0));
    CHECK_THROWS(simt::Error, "store_vec: expected",
                 launch(misaligned_kernel, 1, 1, 0, nullptr, x.data(), x.data() + offset, 1));
    CHECK_THROWS(simt::Error, "cp_async from: expected",
                 launch(misaligned_kernel, 1, 1, 0, nullptr, x.data() + offset, x.data(), 3));
  }
  CHECK_EQ(launch(misaligned_kernel, 1, 1, 0, nullptr, x.data() + 2, x.data(), 2), 0);
  CHECK_THROWS(simt::Error, "aligned to 8 bytes",
               launch(misaligned_kernel, 1, 1, 0, nullptr, x.data() + 3, x.data(), 2));
  CHECK_THROWS(simt::Error, "atomic: expected an aligned address",
               launch(misaligned_kernel, 1, 1, 0, nullptr, x.data(), x.data(), 4));
}

// --- The test framework's own teeth.

TEST(checks_can_fail) {
  CHECK_THROWS(hn::test::Failure, "got 1, expected 2", CHECK_EQ(1, 2));
  CHECK_THROWS(hn::test::Failure, "is false", CHECK(1 > 2));
  CHECK_THROWS(hn::test::Failure, "at 1 of 2 got 3, expected 4",
               CHECK_EQ((std::vector<int>{1, 3}), (std::vector<int>{1, 4})));
  CHECK_THROWS(hn::test::Failure, "got -0, expected 0", CHECK_EQ(std::vector<float>{-0.0f}, std::vector<float>{0.0f}));
  CHECK_THROWS(hn::test::Failure, "got none", CHECK_THROWS(simt::Error, "x", (void)0));
}

}  // namespace
