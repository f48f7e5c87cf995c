// test_words.cpp: what a CUDA thread does on its own (atomics, bits, rounded arithmetic) against its definition. In the
// shim this tests the shim; on a GPU it tests that the definitions are CUDA's.
#include <cmath>
#include <utility>

#include "base/launch.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

constexpr uint32_t kAll = 0xffffffffu;

// --- Atomics: every thread of every block hits the same words.

template <class T>
__global__ void atomics_kernel(T* words, uint32_t* order) {
  const T i = T(blockIdx.x * blockDim.x + threadIdx.x);
  HN_SHARED(T, shared, 1);
  if (threadIdx.x == 0) *shared = 0;
  __syncthreads();
  order[atomicAdd(words, 1)] = 1;
  atomicMax(words + 1, i);
  atomicMin(words + 2, i);
  atomicOr(words + 3, T(1) << (i % 31));
  atomicAnd(words + 4, ~(T(1) << (i % 31)));
  atomicXor(words + 5, i);
  atomicExch(words + 6, T(99));
  T seen = words[7];
  for (;;) {  // a sum by compare-and-swap
    const T old = atomicCAS(words + 7, seen, seen + i);
    if (old == seen) break;
    seen = old;
  }
  atomicAdd(shared, i);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(words + 8, *shared);
}

template <class T>
void check_atomics() {
  const uint32_t blocks = 3, threads = 65, n = blocks * threads;
  T bits = 0, odd = 0, sum = 0;
  for (T i = 0; i < n; ++i) {
    bits |= T(1) << (i % 31);
    odd ^= i;
    sum += i;
  }
  const std::vector<T> start = {0, 0, T(1000), T(1) << 31, T(~T(0)), 0, 5, 0, 0};
  const std::vector<T> expected = {T(n), T(n - 1), 0, T(1) << 31 | bits, T(~bits), odd, 99, sum, sum};
  CHECK_EQ(same_in_every_order([&] {
             Buffer<T> words(start);
             Buffer<uint32_t> order(std::vector<uint32_t>(n, 0));
             CHECK_EQ(launch(atomics_kernel<T>, blocks, threads, 0, nullptr, words.data(), order.data()), 0);
             CHECK_EQ(order.read(), std::vector<uint32_t>(n, 1));  // each old value was handed out once
             return words.read();
           }),
           expected);
}

TEST(atomics_in_global_and_shared_memory) {
  check_atomics<unsigned>();
  check_atomics<unsigned long long>();
}

__global__ void float_atomics_kernel(float* sum, int* low) {
  atomicAdd(sum, float(threadIdx.x));
  atomicSub(low, int(threadIdx.x));
  atomicMin(low + 1, -int(threadIdx.x));
  atomicMax(low + 2, -int(threadIdx.x) - 1);
}

TEST(atomics_of_floats_and_signed_words) {
  CHECK_EQ(same_in_every_order([] {
             Buffer<float> sum(std::vector<float>{0.5f});
             Buffer<int> low(std::vector<int>{3, 0, -1000});
             CHECK_EQ(launch(float_atomics_kernel, 1, 64, 0, nullptr, sum.data(), low.data()), 0);
             CHECK_EQ(sum.read()[0], 2016.5f);
             return low.read();
           }),
           (std::vector<int>{3 - 2016, -63, -1}));
}

// --- One thread's words.

__global__ void bit_words_kernel(const uint32_t* in, uint32_t* out, unsigned long long* wide, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const uint32_t x = in[i], y = in[(i + 1) % n];
  const unsigned long long w = static_cast<unsigned long long>(x) << 32 | y;
  uint32_t* const o = out + 8 * i;
  o[0] = uint32_t(__popc(x));
  o[1] = uint32_t(__ffs(int(x)));
  o[2] = uint32_t(__clz(int(x)));
  o[3] = __brev(x);
  o[4] = __umulhi(x, y);
  o[5] = __funnelshift_l(x, y, y);
  o[6] = __funnelshift_r(x, y, y);
  o[7] = __byte_perm(x, y, y & 0x7777u);
  unsigned long long* const v = wide + 5 * i;
  v[0] = static_cast<unsigned long long>(__popcll(w));
  v[1] = static_cast<unsigned long long>(__ffsll(static_cast<long long>(w)));
  v[2] = static_cast<unsigned long long>(__clzll(static_cast<long long>(w)));
  v[3] = __brevll(w);
  v[4] = __umul64hi(w, ~w);
}

int highest(uint64_t x) {
  int h = -1;
  for (int b = 0; b < 64; ++b) h = x >> b & 1u ? b : h;
  return h;
}
int lowest(uint64_t x) {
  for (int b = 0; b < 64; ++b) {
    if (x >> b & 1u) return b;
  }
  return -1;
}

TEST(bit_words) {
  Random random(21);
  std::vector<uint32_t> x = {0, 1, 2, 0x80000000u, 0xffffffffu, 0x7fffffffu, 31, 32, 33};
  while (x.size() < 300) x.push_back(uint32_t(random.bits()) >> (random.below(33) % 32));
  std::vector<uint32_t> narrow;
  std::vector<unsigned long long> wide;
  for (size_t i = 0; i < x.size(); ++i) {
    const uint64_t a = x[i], b = x[(i + 1) % x.size()], w = a << 32 | b, both = b << 32 | a;
    uint64_t reversed = 0, count = 0, wide_reversed = 0;
    for (int k = 0; k < 32; ++k) reversed |= (a >> k & 1u) << (31 - k);
    for (int k = 0; k < 64; ++k) wide_reversed |= (w >> k & 1u) << (63 - k);
    for (int k = 0; k < 64; ++k) count += w >> k & 1u;
    uint64_t ones = 0, bytes = 0;
    for (int k = 0; k < 32; ++k) ones += a >> k & 1u;
    for (int k = 0; k < 4; ++k) bytes |= (both >> (8 * (b >> (4 * k) & 7u)) & 0xffu) << (8 * k);
    for (uint64_t v : {ones, uint64_t(lowest(a) + 1), uint64_t(31 - highest(a)), reversed, a * b >> 32,
                       (both << (b & 31u)) >> 32, both >> (b & 31u), bytes}) {
      narrow.push_back(uint32_t(v));
    }
    // High half of w * ~w by schoolbook multiplication of 32-bit halves.
    const uint64_t p = w >> 32, q = w & kAll, r = ~w >> 32, s = ~w & kAll;
    const uint64_t middle = (q * s >> 32) + (p * s & kAll) + (q * r & kAll);
    for (uint64_t v : {count, uint64_t(lowest(w) + 1), uint64_t(63 - highest(w)), wide_reversed,
                       p * r + (p * s >> 32) + (q * r >> 32) + (middle >> 32)}) {
      wide.push_back(v);
    }
  }
  const int n = int(x.size());
  CHECK_EQ(same_in_every_order([&] {
             Buffer<uint32_t> in(x), out(narrow.size());
             Buffer<unsigned long long> out_wide(wide.size());
             CHECK_EQ(launch(bit_words_kernel, 3, 128, 0, nullptr, in.data(), out.data(), out_wide.data(), n), 0);
             CHECK_EQ(out_wide.read(), wide);
             return out.read();
           }),
           narrow);
}

__global__ void float_words_kernel(const float* in, float* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const float x = in[i], y = in[(i + 1) % n], z = in[(i + 2) % n];
  float* const o = out + 8 * i;
  o[0] = __fadd_rn(__fmul_rn(x, y), z);  // two roundings, never one
  o[1] = __fmaf_rn(x, y, z);
  o[2] = __fsub_rn(x, y);
  o[3] = __fdiv_rn(x, y);
  o[4] = __fsqrt_rn(__uint_as_float(__float_as_uint(x) & 0x7fffffffu));
  o[5] = __int_as_float(__float_as_int(x) ^ int(0x80000000u));
  o[6] = max(x, y);
  o[7] = float(min(int(i), 7)) + float(__double_as_longlong(__longlong_as_double(i)));
}

TEST(float_words_round_once_each) {
  Random random(33);
  std::vector<float> x;
  for (int i = 0; i < 400; ++i) x.push_back(std::ldexp(random.symmetric() + 1e-9f, int(random.below(20)) - 10));
  std::vector<float> expected;
  const size_t n = x.size();
  int split = 0;
  for (size_t i = 0; i < n; ++i) {
    const float a = x[i], b = x[(i + 1) % n], c = x[(i + 2) % n];
    const float rounded = float(double(a) * b);  // a product of two floats is exact in double
    const float twice = float(double(rounded) + c);
    const float once = std::fma(a, b, c);
    split += twice != once;
    for (float v : {twice, once, a - b, a / b, std::sqrt(std::fabs(a)), -a, std::max(a, b),
                    float(std::min(int(i), 7)) + float(i)}) {
      expected.push_back(v);
    }
  }
  CHECK(split > 20);  // else a contraction would go unseen
  CHECK_EQ(same_in_every_order([&] {
             Buffer<float> in(x), out(expected.size());
             CHECK_EQ(launch(float_words_kernel, 4, 128, 0, nullptr, in.data(), out.data(), int(n)), 0);
             return out.read();
           }),
           expected);
}

TEST(vector_types_have_cuda_layout) {
  static_assert(sizeof(float4) == 16 && alignof(float4) == 16, "float4");
  static_assert(sizeof(uint4) == 16 && alignof(uint4) == 16, "uint4");
  static_assert(sizeof(int2) == 8 && alignof(int2) == 8, "int2");
  static_assert(sizeof(__nv_bfloat162) == 4 && sizeof(__half2) == 4 && sizeof(__half) == 2, "16-bit floats");
  const float4 f = make_float4(1, 2, 3, 4);
  CHECK_EQ(f.x + 10 * f.y + 100 * f.z + 1000 * f.w, 4321.0f);
  const uint2 u = make_uint2(5, 6);
  CHECK_EQ(u.x + 10 * u.y, 65u);
}

}  // namespace
