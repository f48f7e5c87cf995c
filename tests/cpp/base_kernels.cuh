// base_kernels.cuh: small kernels that use every word of csrc/base once: run by the tests, compiled
// by base_kernels.cu.
#pragma once
#include "base/collectives.cuh"
#include "base/launch.cuh"
#include "base/memory.cuh"
#include "base/mma.cuh"

namespace hn {
namespace test {

// One block for each row of n values: their sum, and the exclusive scan.
template <int kThreads, class T>
__global__ void __launch_bounds__(kThreads) row_scan_kernel(const T* in, int n, T* scan, T* sum) {
  HN_SHARED(T, scratch, kBlockScratch<kThreads>);
  const T* const row = in + int64_t(blockIdx.x) * n;
  T before = 0, mine = 0;
  for (int first = 0; first < n; first += kThreads) {
    const int i = first + int(threadIdx.x);
    const T v = i < n ? row[i] : T(0);
    mine += v;
    const Scan<T> s = block_scan<kThreads>(v, scratch);
    if (i < n) scan[int64_t(blockIdx.x) * n + i] = before + s.before;
    before += s.total;
  }
  const T total = block_sum<kThreads>(mine, scratch);
  if (threadIdx.x == kThreads - 1) sum[blockIdx.x] = total;
}

// Every thread scribbles over the scratch before and after each call: it is the caller's. The
// counts of block_select are written just before by other threads, and its second rank is in no
// bin.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) scribble_kernel(const uint32_t* in, uint32_t* out) {
  HN_SHARED(uint32_t, scratch, kBlockScratch<kThreads> + 2);
  HN_SHARED(uint32_t, counts, kThreads);
  const uint32_t t = threadIdx.x, at = (t + 32) % (kBlockScratch<kThreads> + 2);
  scratch[at] = t;
  const uint32_t sum = block_sum<kThreads>(in[t], scratch);
  scratch[at] = sum;
  const Scan<uint32_t> scan = block_scan<kThreads>(in[t], scratch);
  scratch[at] = scan.total;
  counts[kThreads - 1 - t] = in[kThreads - 1 - t];
  const Selected s = block_select<kThreads>(counts, kThreads, scan.total - 1, scratch);
  scratch[at] = t;
  const Selected none = block_select<kThreads>(counts, kThreads, scan.total, scratch);
  scratch[at] = t;
  out[4 * t] = sum;
  out[4 * t + 1] = scan.before;
  out[4 * t + 2] = none.bin == -1 ? uint32_t(s.bin) : 0xffffffffu;
  out[4 * t + 3] = s.before;
}

// Per thread of one warp: [ballot before, ballot total, reserved place or -1], [scan, sum, max].
template <class T>
__global__ void warp_kernel(const T* in, const int* votes, uint32_t* counter, int32_t* ranks, T* values) {
  const int i = int(threadIdx.x);
  const Rank r = ballot_rank(votes[i] != 0);
  ranks[3 * i] = r.before;
  ranks[3 * i + 1] = r.total;
  const uint32_t place = warp_reserve(counter, votes[i] != 0);
  ranks[3 * i + 2] = votes[i] != 0 ? int32_t(place) : -1;
  values[3 * i] = warp_inclusive_scan(in[i]);
  values[3 * i + 1] = warp_sum(in[i]);
  values[3 * i + 2] = warp_max(in[i]);
}

// One block finds the bins of many ranks; every thread must have the same answer.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    select_kernel(const uint32_t* counts, int bins, const uint32_t* rank, int ranks, int32_t* bin, uint32_t* before) {
  HN_SHARED(uint32_t, scratch, kBlockScratch<kThreads> + 2);
  for (int r = 0; r < ranks; ++r) {
    const Selected s = block_select<kThreads>(counts, bins, rank[r], scratch);
    bin[r * kThreads + int(threadIdx.x)] = s.bin;
    before[r * kThreads + int(threadIdx.x)] = s.before;
  }
}

// Copies n elements as vectors of N, the rest one at a time.
template <int N, class T>
__global__ void copy_kernel(const T* in, T* out, int n, int how) {
  const int threads = int(gridDim.x * blockDim.x), first = int(blockIdx.x * blockDim.x + threadIdx.x);
  for (int i = first; i < n / N; i += threads) {
    const Vec<T, N> v = how == 0   ? load_vec<N>(in + N * i)
                        : how == 1 ? load_vec_readonly<N>(in + N * i)
                                   : load_vec_streaming<N>(in + N * i);
    if (how == 2) {
      store_vec_streaming(out + N * i, v);
    } else {
      store_vec(out + N * i, v);
    }
  }
  for (int i = n / N * N + first; i < n; i += threads) out[i] = in[i];
}

// Sums tiles of the input through a ring of two shared buffers filled by cp_async, zeros past n.
// kWait: groups left in flight; 1 is right, 2 is the planted mistake of not waiting for the tile in
// use.
template <int kBytes, int kWait>
__global__ void __launch_bounds__(64) async_sum_kernel(const uint32_t* in, int n, uint32_t* out) {
  constexpr int kEach = kBytes / 4, kTile = 64 * kEach;
  HN_DYNAMIC_SHARED(uint32_t, ring);  // [2][kTile]
  const int at = int(threadIdx.x) * kEach, tiles = (n + kTile - 1) / kTile;
  const auto fetch = [&](int tile) {
    const int i = tile * kTile + at;
    if (tile < tiles) cp_async<kBytes>(ring + tile % 2 * kTile + at, in + (i < n ? i : 0), i < n);
    cp_async_commit();
  };
  uint32_t sum = 0;
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    cp_async_wait<kWait>();
    __syncthreads();
    for (int i = 0; i < kEach; ++i) sum += ring[tile % 2 * kTile + (at + kEach + i) % kTile];  // a neighbour's
    __syncthreads();
  }
  cp_async_wait<0>();
  out[threadIdx.x] = sum;
}

// Each block adds its value; the one that comes last publishes the total.
__global__ void last_block_kernel(const uint32_t* in, uint32_t* partial, uint32_t* ticket, uint32_t* out) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = in[blockIdx.x];
  if (atomic_add_acq_rel(ticket, 1) + 1 < gridDim.x) return;
  uint32_t sum = 0;
  for (uint32_t b = 0; b < gridDim.x; ++b) sum += partial[b];
  *out = sum;
}

// Blocks in the order of their tickets: each adds to the sum of the one before and hands it on.
__global__ void chained_scan_kernel(const uint32_t* in, uint32_t* ticket, uint64_t* state, uint32_t* out) {
  HN_SHARED(uint32_t, place, 1);
  if (threadIdx.x == 0) *place = atomicAdd(ticket, 1u);
  __syncthreads();
  const uint32_t b = *place;
  if (threadIdx.x != 0) return;
  uint64_t before = 0;
  if (b > 0) {
    while (((before = load_acquire(state + b - 1)) >> 32) == 0) {
    }
  }
  out[b] = uint32_t(before);
  store_release(state + b, uint64_t(1) << 32 | (uint32_t(before) + in[b]));
}

__global__ void release_kernel(uint32_t* counter, uint32_t* flag, uint32_t* seen) {
  if (threadIdx.x == 0) seen[1] = atomic_add_release(counter, 5);
  if (threadIdx.x == 0) store_release(flag, 1);
  __syncwarp();
  if (threadIdx.x == 1) seen[0] = load_acquire(flag);
}

// D[m][n] = A[m][k] B[k][n] + D for one 16x8 tile and k a multiple of 16, fragments read element by
// element.
__global__ void mma_kernel(const uint16_t* a, const uint16_t* b, float* d, int k) {
  const int lane = lane_index();
  MmaD acc;
  for (int i = 0; i < 4; ++i) acc.value[i] = d[mma_d_row(lane, i) * 8 + mma_d_col(lane, i)];
  for (int k0 = 0; k0 < k; k0 += 16) {
    MmaA fa;
    MmaB fb;
    for (int w = 0; w < 4; ++w) {
      const uint16_t* const p = a + mma_a_row(lane, w) * k + k0 + mma_a_col(lane, w);
      fa.word[w] = uint32_t(p[1]) << 16 | p[0];
    }
    for (int w = 0; w < 2; ++w) {
      const uint16_t* const p = b + (k0 + mma_b_row(lane, w)) * 8 + mma_b_col(lane);
      fb.word[w] = uint32_t(p[8]) << 16 | p[0];
    }
    mma_m16n8k16(acc, fa, fb);
  }
  for (int i = 0; i < 4; ++i) d[mma_d_row(lane, i) * 8 + mma_d_col(lane, i)] = acc.value[i];
}

// The same of bytes: A is [16][k], B is [k][8], k a multiple of 32.
template <bool kSignedA, bool kSignedB>
__global__ void mma_bytes_kernel(const uint8_t* a, const uint8_t* b, int32_t* d, int k) {
  const int lane = lane_index();
  MmaSums acc;
  for (int i = 0; i < 4; ++i) acc.value[i] = d[mma_d_row(lane, i) * 8 + mma_d_col(lane, i)];
  for (int k0 = 0; k0 < k; k0 += 32) {
    MmaA fa = {};
    MmaB fb = {};
    for (int w = 0; w < 4; ++w) {
      for (int i = 0; i < 4; ++i) {
        const uint8_t byte = a[mma_bytes_a_row(lane, w) * k + k0 + mma_bytes_a_col(lane, w) + i];
        fa.word[w] |= uint32_t(byte) << (8 * i);
      }
    }
    for (int w = 0; w < 2; ++w) {
      for (int i = 0; i < 4; ++i) {
        const uint8_t byte = b[(k0 + mma_bytes_b_row(lane, w) + i) * 8 + mma_b_col(lane)];
        fb.word[w] |= uint32_t(byte) << (8 * i);
      }
    }
    mma_m16n8k32<kSignedA, kSignedB>(acc, fa, fb);
  }
  for (int i = 0; i < 4; ++i) d[mma_d_row(lane, i) * 8 + mma_d_col(lane, i)] = acc.value[i];
}

using EightHalves = Vec<uint16_t, 8>;

// The same for k = 16 through shared memory and ldmatrix. `k_major`: B lies as [n][k], else as
// [k][n].
__global__ void mma_ldmatrix_kernel(const uint16_t* a, const uint16_t* b, float* d, bool k_major) {
  HN_SHARED(EightHalves, tile_a, 16 * 2);
  HN_SHARED(EightHalves, tile_b, 8 * 2);
  const int lane = lane_index();
  uint16_t* const sa = reinterpret_cast<uint16_t*>(tile_a);
  uint16_t* const sb = reinterpret_cast<uint16_t*>(tile_b);
  for (int i = lane; i < 256; i += 32) sa[i] = a[i];
  for (int i = lane; i < 128; i += 32) sb[i] = b[i];
  __syncwarp();
  MmaA fa;
  MmaB fb;
  ldmatrix_x4(fa.word, sa + lane % 16 * 16 + lane / 16 * 8);
  if (k_major) {
    ldmatrix_x2(fb.word, sb + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    ldmatrix_x2_transposed(fb.word, sb + lane % 16 * 8);
  }
  MmaD acc = {{0, 0, 0, 0}};
  mma_m16n8k16(acc, fa, fb);
  for (int i = 0; i < 4; ++i) d[mma_d_row(lane, i) * 8 + mma_d_col(lane, i)] = acc.value[i];
}

// Four matrices, plain and transposed, word by word.
__global__ void ldmatrix_kernel(const uint16_t* in, uint32_t* plain, uint32_t* transposed) {
  HN_SHARED(EightHalves, rows, 32);
  const int lane = lane_index();
  for (int i = 0; i < 8; ++i) rows[lane].v[i] = in[8 * lane + i];
  __syncwarp();
  uint32_t w[4];
  ldmatrix_x4(w, rows + lane);
  for (int i = 0; i < 4; ++i) plain[4 * lane + i] = w[i];
  ldmatrix_x4_transposed(w, rows + lane);
  for (int i = 0; i < 4; ++i) transposed[4 * lane + i] = w[i];
}

__global__ void pack_kernel(const float* in, uint32_t* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = pack_bf16(in[2 * i], in[2 * i + 1]);
}

}  // namespace test
}  // namespace hn
