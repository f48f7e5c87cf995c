// cudart.cpp: the part of the CUDA runtime that our test programs call, for a machine without a GPU: memory is the host's,
// and a launch interprets the PTX that the program carries. A program linked with this in place of libcudart runs on it.
#include <cuda_runtime_api.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "transfers.h"

namespace {

constexpr int kMultiprocessors = 4;
constexpr size_t kMostDynamic = 227 * 1024, kUsualDynamic = 48 * 1024;

struct
    FatBinary {  // what __cudaRegisterFatBinary gets; its data are a header of 16 bytes, its length at 8, and entries
  int magic, version;
  const uint8_t* data;
};

struct Device {
  std::map<const void*, ptx::Kernel*> functions;
  std::map<std::string, ptx::Kernel> kernels;
  std::map<const void*, size_t> opted;  // in to much dynamic shared memory
  cudaError_t last = cudaSuccess;
  uint64_t launches = 0;
};

Device& device() {
  static Device d;
  return d;
}

cudaError_t kept(cudaError_t e) {
  if (e != cudaSuccess) device().last = e;
  return e;
}

uint64_t seed() {
  const char* given = std::getenv("HN_PTX_SEED");
  return (given ? std::strtoull(given, nullptr, 0) : 1) * 1000003 + device().launches++;
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  const uint8_t* data = static_cast<FatBinary*>(wrapper)->data;
  uint64_t bytes;
  std::memcpy(&bytes, data + 8, sizeof bytes);
  const std::string all(reinterpret_cast<const char*>(data), 16 + bytes);
  const size_t begin = all.find("\n.version ");
  if (begin == std::string::npos) {
    std::fprintf(stderr,
                 "ptx: expected PTX in the program, found none; build it with code=compute_NN, --no-compress\n");
    std::exit(2);
  }
  device().kernels = ptx::Parser(all.substr(begin, all.find('\0', begin) - begin)).kernels();
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // blocks come and go
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  const auto kernel = device().kernels.find(name);
  if (kernel != device().kernels.end()) device().functions[host] = &kernel->second;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
// of <<<>>>, which nobody uses here: hn::launch() calls cudaLaunchKernelExC
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 1; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* f) {
  *k = reinterpret_cast<cudaKernel_t>(const_cast<void*>(f));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* function, void** arguments) {
  const auto known = device().functions.find(function);
  if (known == device().functions.end()) return kept(cudaErrorInvalidDeviceFunction);
  const dim3 g = c->gridDim, b = c->blockDim;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (threads == 0 || threads > 1024 || b.z > 64 || g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu ||
      g.y > 65535 || g.z > 65535) {
    return kept(cudaErrorInvalidConfiguration);
  }
  const auto opted = device().opted.find(function);
  ptx::Kernel& k = *known->second;
  const size_t most = opted == device().opted.end() ? kUsualDynamic - k.shared_bytes : opted->second;
  if (c->dynamicSmemBytes > most) return kept(cudaErrorInvalidValue);
  for (size_t p = 0; p < k.parameters.size(); ++p) {
    std::memcpy(&k.arguments[k.parameters[p].offset], arguments[p], k.parameters[p].bytes);
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
  if (a != cudaDevAttrMultiProcessorCount) return kept(cudaErrorInvalidValue);
  return *value = kMultiprocessors, cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (posix_memalign(p, 256, bytes + 32) != 0) return kept(cudaErrorMemoryAllocation);
  ptx::allocations()[uint64_t(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  ptx::allocations().erase(uint64_t(p));
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int byte, size_t bytes) {
  std::memset(p, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t) { return cudaMemset(p, byte, bytes); }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetLastError() {
  const cudaError_t e = device().last;
  device().last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return device().last; }
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : "an error of the PTX interpreter";
}
const char* cudaGetErrorName(cudaError_t e) { return cudaGetErrorString(e); }
}
