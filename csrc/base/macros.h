// macros.h: the few words that make one header serve g++, nvcc and the SIMT shim. No torch, no CUDA headers.
#pragma once

#if defined(__CUDACC__)
#define HN_HD __host__ __device__ __forceinline__
#else
#define HN_HD inline
#endif

// One correctly rounded IEEE operation each. Host code is compiled with -ffp-contract=off; device code must ask for the
// rounded form, because nvcc would otherwise contract a*b+c into an fma and the backends would disagree in the last bit.
namespace hn {

HN_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

HN_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// a * b + c, rounded once. Not part of the generator: a CPU without the instruction computes it slowly.
HN_HD float fma_rn(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

HN_HD float sqrt_rn(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

}  // namespace hn
