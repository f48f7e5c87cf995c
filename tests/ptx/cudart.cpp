// cudart.cpp: the part of the CUDA runtime that our test programs call, for a machine without a GPU: memory is the host's,
// and a launch interprets the PTX that the program carries. A program linked with this in place of libcudart runs on it.
#include <cuda_runtime_api.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "instructions.h"

namespace {

constexpr int kMultiprocessors = 4;
constexpr size_t kMostDynamic = 227 * 1024, kUsualDynamic = 48 * 1024;

struct FatBinary {  // of __cudaRegisterFatBinary; its data: a header of 16 bytes, the length at 8, and entries
  int magic, version;
  const uint8_t* data;
};

struct Device {
  std::map<std::string, ptx::Kernel> kernels;
  std::map<const void*, ptx::Kernel*> functions;
  std::map<const void*, size_t> opted;  // in to much dynamic shared memory
  cudaError_t last = cudaSuccess;
  uint64_t launches = 0;
};

Device& device() {  // programs register their kernels before this file's variables would be there
  static Device d;
  return d;
}

cudaError_t kept(cudaError_t e) { return e == cudaSuccess ? e : device().last = e; }

uint64_t seed() {
  const char* given = std::getenv("HN_PTX_SEED");
  return (given ? std::strtoull(given, nullptr, 0) : 1) * 1000003 + device().launches++;
}

}  // namespace

extern "C" {

// --- What nvcc's own code calls.
void** __cudaRegisterFatBinary(void* wrapper) {
  const uint8_t* data = static_cast<FatBinary*>(wrapper)->data;
  uint64_t bytes;
  std::memcpy(&bytes, data + 8, sizeof bytes);
  std::string text(reinterpret_cast<const char*>(data), 16 + bytes);
  if (const char* other = std::getenv("HN_PTX")) {  // a file to run in place of the program's own
    std::ifstream file(other);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  const size_t begin = std::min(text.find(".version "), text.size());
  device().kernels = ptx::Parser(text.substr(begin, text.find('\0', begin) - begin)).kernels();
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // blocks come and go
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  const auto kernel = device().kernels.find(name);
  if (kernel == device().kernels.end()) {
    std::fprintf(stderr, "ptx: expected PTX of %s, got none; build with code=compute_NN, --no-compress\n", name);
    std::exit(2);
  }
  device().functions[host] = &kernel->second;
}

// --- Of <<<>>>, which nobody uses here: hn::launch() calls cudaLaunchKernelExC.
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

// --- What the tests call.
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* function, void** arguments) {
  Device& d = device();
  const dim3 g = c->gridDim, b = c->blockDim;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (d.functions.count(function) == 0) return kept(cudaErrorInvalidDeviceFunction);
  if (threads == 0 || threads > 1024 || b.z > 64 || g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu ||
      g.y > 65535 || g.z > 65535) {
    return kept(cudaErrorInvalidConfiguration);
  }
  ptx::Kernel& k = *d.functions[function];
  const size_t most = d.opted.count(function) ? d.opted[function] : kUsualDynamic - k.shared_bytes;
  if (c->dynamicSmemBytes > most) return kept(cudaErrorInvalidValue);
  for (size_t p = 0; p < k.parameters.size(); ++p) {
    const auto [begin, end] = k.parameters[p];
    std::memcpy(&k.arguments[begin], arguments[p], end - begin);
  }
  try {
    ptx::Machine(k, {g.x, g.y, g.z}, {b.x, b.y, b.z}, c->dynamicSmemBytes, seed()).run();
  } catch (const ptx::Error& e) {  // as on a GPU: nothing can be trusted after it
    std::fprintf(stderr, "%s\n", e.what());
    std::exit(3);
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
  if (size_t(value) > kMostDynamic) return kept(cudaErrorInvalidValue);
  device().opted[function] = size_t(value);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* d) { return *d = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int) {
  *value = kMultiprocessors;
  return kept(a == cudaDevAttrMultiProcessorCount ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (posix_memalign(p, 256, bytes + 32) != 0) return kept(cudaErrorMemoryAllocation);
  ptx::allocations()[uint64_t(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  ptx::allocations().erase(uint64_t(p));
  return std::free(p), cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) {
  return std::memcpy(to, from, n), cudaSuccess;
}
cudaError_t cudaMemset(void* p, int byte, size_t n) { return std::memset(p, byte, n), cudaSuccess; }
cudaError_t cudaMemsetAsync(void* p, int byte, size_t n, cudaStream_t) { return cudaMemset(p, byte, n); }
cudaError_t cudaGetLastError() { return std::exchange(device().last, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : "an error of the interpreter"; }
}
