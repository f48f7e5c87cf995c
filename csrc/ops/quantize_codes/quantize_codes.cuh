// quantize_codes.cuh: the kernels of ranges, codes and the threshold: one read of the tensor each.
#pragma once
#include "../../base/collectives.cuh"
#include "../../base/memory.cuh"
#include "quantize_codes.h"

namespace hn {
namespace cuda {

constexpr int kCodeThreads = 256;
constexpr int kCodeElems = 8;             // neighbours a thread owns: 16 or 32 bytes in, 8 to 32 out
constexpr int64_t kRangeBlock = 1 << 14;  // elements of a sample that a block reads
constexpr int kMeanTile = kCodeThreads;   // samples whose maxima lie in shared memory at a time

// Elements [first, first + kCodeElems) as float32; those from n on are 0.
__device__ __forceinline__ void load_values(const void* x, Dtype dtype, int64_t first, int64_t n, float* v) {
  if (first + kCodeElems <= n) {
    if (dtype == Dtype::kFloat32) {
      const float* p = static_cast<const float*>(x) + first;
      if (is_aligned<16>(p)) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const Vec<float, 4> part = load_vec_readonly<4>(p + 4 * h);
#pragma unroll
          for (int e = 0; e < 4; ++e) v[4 * h + e] = part[e];
        }
        return;
      }
    } else {
      const uint16_t* p = static_cast<const uint16_t*>(x) + first;
      if (is_aligned<16>(p)) {
        const Vec<uint16_t, 8> part = load_vec_readonly<8>(p);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = dtype == Dtype::kBFloat16 ? from_bfloat16(part[e]) : from_float16(part[e]);
        return;
      }
    }
  }
#pragma unroll
  for (int e = 0; e < kCodeElems; ++e) v[e] = first + e < n ? load_as_float(x, dtype, first + e) : 0.0f;
}

// Block (b, s) reads part b of sample s once and adds its largest magnitude to work[s] by an atomic maximum, whose
// result no order changes. The last block to finish takes the mean, in order. work: zeros, and behind them the ticket.
__global__ void __launch_bounds__(kCodeThreads) code_range_kernel(const __grid_constant__ CodeRangeParams p) {
  HN_SHARED(uint32_t, shared, kMeanTile);
  const int64_t parts = (p.size + kRangeBlock - 1) / kRangeBlock;
  const int64_t sample = int64_t(blockIdx.x) / parts, part = int64_t(blockIdx.x) % parts;
  const int64_t end = sample * p.size + (p.size < (part + 1) * kRangeBlock ? p.size : (part + 1) * kRangeBlock);
  uint32_t most = 0;
  for (int64_t i = sample * p.size + part * kRangeBlock + int64_t(threadIdx.x) * kCodeElems; i < end;
       i += kCodeThreads * kCodeElems) {
    float v[kCodeElems];
    load_values(p.x, p.dtype, i, end, v);
#pragma unroll
    for (int e = 0; e < kCodeElems; ++e) {
      const uint32_t m = magnitude_bits(v[e]);
      most = m > most ? m : most;
    }
  }
  most = __reduce_max_sync(kFullWarp, most);
  if (lane_index() == 0 && most > 0) atomicMax(p.work + sample, most);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) shared[0] = atomic_add_acq_rel(p.work + p.samples, 1u);
  __syncthreads();
  const bool last = shared[0] == uint32_t(gridDim.x) - 1u;
  __syncthreads();
  if (!last) return;
  double sum = 0.0;
  for (int64_t s0 = 0; s0 < p.samples; s0 += kMeanTile) {
    const int64_t left = p.samples - s0;
    const int count = int(left < kMeanTile ? left : kMeanTile);
    if (int(threadIdx.x) < count) shared[threadIdx.x] = load_acquire(p.work + s0 + threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int s = 0; s < count; ++s) sum += double(bits_float(shared[s]));
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *p.maximum = float(sum / double(p.samples));
}

template <class T>
__device__ __forceinline__ void store_codes(T* out, int64_t first, int64_t n, const int32_t* c) {
  constexpr int kEach = sizeof(T) < 4 ? kCodeElems : 4;
  if (first + kCodeElems <= n && is_aligned<int(sizeof(T)) * kEach>(out + first)) {
#pragma unroll
    for (int h = 0; h < kCodeElems; h += kEach) {
      Vec<T, kEach> part;
#pragma unroll
      for (int e = 0; e < kEach; ++e) part[e] = T(c[h + e]);
      store_vec(out + first + h, part);
    }
    return;
  }
  for (int e = 0; e < kCodeElems && first + e < n; ++e) out[first + e] = T(c[e]);
}

// A thread owns eight neighbours in memory: read once, written once. Threads never meet.
template <class T>
__global__ void __launch_bounds__(kCodeThreads) quantize_codes_kernel(const __grid_constant__ QuantizeCodesParams p) {
  const CodeGrid g = code_grid(*p.maximum, p.bits, p.is_signed);
  const int64_t first = (int64_t(blockIdx.x) * kCodeThreads + threadIdx.x) * kCodeElems;
  if (first == 0) *p.delta = g.delta;
  if (first >= p.n) return;
  float v[kCodeElems];
  int32_t c[kCodeElems];
  load_values(p.x, p.dtype, first, p.n, v);
#pragma unroll
  for (int e = 0; e < kCodeElems; ++e) c[e] = code_of(g, v[e]);
  store_codes(static_cast<T*>(p.codes), first, p.n, c);
}

constexpr int kTilePixels = 32, kTileChannels = 64;

// A block owns 32 pixels by 64 channels of an image: reads them pixel by pixel, 128 bytes a warp, turns them in shared
// memory, and writes each pixel's channels side by side.
template <class T>
__global__ void __launch_bounds__(kCodeThreads) turned_codes_kernel(const __grid_constant__ QuantizeCodesParams p) {
  HN_SHARED(int32_t, tile, kTilePixels*(kTileChannels + 1));
  const CodeGrid g = code_grid(*p.maximum, p.bits, p.is_signed);
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.delta = g.delta;
  const int64_t across = (p.pixels + kTilePixels - 1) / kTilePixels;
  const int64_t down = (p.channels + kTileChannels - 1) / kTileChannels;
  const int64_t image = int64_t(blockIdx.x) / (across * down) * p.channels * p.pixels;
  const int64_t p0 = int64_t(blockIdx.x) % across * kTilePixels;
  const int64_t c0 = int64_t(blockIdx.x) / across % down * kTileChannels;
  for (int i = int(threadIdx.x); i < kTilePixels * kTileChannels; i += kCodeThreads) {
    const int c = i / kTilePixels, q = i % kTilePixels;
    if (c0 + c < p.channels && p0 + q < p.pixels) {
      tile[q * (kTileChannels + 1) + c] = code_of(g, load_as_float(p.x, p.dtype, image + (c0 + c) * p.pixels + p0 + q));
    }
  }
  __syncthreads();
  T* const codes = static_cast<T*>(p.codes) + image;
  for (int i = int(threadIdx.x); i < kTilePixels * kTileChannels; i += kCodeThreads) {
    const int c = i % kTileChannels, q = i / kTileChannels;
    if (c0 + c < p.channels && p0 + q < p.pixels) {
      codes[(p0 + q) * p.channels + c0 + c] = T(tile[q * (kTileChannels + 1) + c]);
    }
  }
}

// A thread owns four neighbours.
__global__ void __launch_bounds__(kCodeThreads) threshold_kernel(const __grid_constant__ ThresholdParams p) {
  const float threshold = threshold_of(p);
  const int64_t first = (int64_t(blockIdx.x) * kCodeThreads + threadIdx.x) * 4;
  if (first + 4 <= p.n && is_aligned<16>(p.grad) && is_aligned<16>(p.exact)) {
    Vec<float, 4> g = load_vec<4>(p.grad + first), exact = {};
    if (p.exact != nullptr) exact = load_vec<4>(p.exact + first);
#pragma unroll
    for (int e = 0; e < 4; ++e) g[e] = thresholded(g[e], exact[e], threshold, p.sign);
    store_vec(p.grad + first, g);
    return;
  }
  for (int64_t i = first; i < first + 4 && i < p.n; ++i) {
    p.grad[i] = thresholded(p.grad[i], p.exact == nullptr ? 0.0f : p.exact[i], threshold, p.sign);
  }
}

}  // namespace cuda
}  // namespace hn
