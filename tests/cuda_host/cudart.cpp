// cudart.cpp: a CUDA runtime that runs nothing. Preloaded, it makes a CUDA build of torch believe in a GPU: device memory is
// the host's, kernels and fills do nothing, copies copy. What a program asks of the device is counted by name, and what a real one
// would refuse is kept as a violation: launches no GPU takes, and under capture whatever may not be captured.
//
//   HN_MOCK_CAPABILITY=75   of the GPU, default 90
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace {

constexpr size_t kTotal = size_t(140) << 30, kSharedPerBlock = 48 * 1024, kSharedOptIn = 227 * 1024;
constexpr int kProcessors = 132;

struct State {
  std::recursive_mutex mutex;
  std::map<const void*, std::string> names;            // of kernels
  std::map<std::string, long> counts;                  // of what was asked
  std::map<uintptr_t, size_t> device, pinned;          // allocations
  std::map<const void*, size_t> dynamic_shared;        // opted in to
  cudaError_t last = cudaSuccess, next = cudaSuccess;  // next: what the next launch of ours fails with
  cudaStream_t capturing = nullptr;
  unsigned long long captures = 0;
  uintptr_t handles = 4096;
};
State& state() {
  static State* s = new State;  // outlives everybody's destructors
  return *s;
}
struct Locked {
  std::lock_guard<std::recursive_mutex> lock{state().mutex};
  State* operator->() const { return &state(); }
};

thread_local int current_device = 0;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
thread_local struct {
  dim3 grid, block;
  size_t shared;
  void* stream;
} configuration;

template <class T>
void new_handle(T* out) {
  Locked s;
  *out = reinterpret_cast<T>(s->handles += 64);
}

void count(const std::string& what) {
  Locked s;
  ++s->counts[what];
}

// Asked of the whole device or another stream: not while a capture goes on.
void count_uncaptured(const std::string& what) {
  Locked s;
  ++s->counts[what];
  if (s->capturing && mode != cudaStreamCaptureModeRelaxed) ++s->counts["violation: " + what + " under capture"];
}

cudaError_t kept(cudaError_t e) {
  Locked s;
  if (e != cudaSuccess) s->last = e;
  return e;
}

bool contains(const std::map<uintptr_t, size_t>& all, const void* p) {
  const auto next = all.upper_bound(uintptr_t(p));
  return next != all.begin() && uintptr_t(p) < std::prev(next)->first + std::prev(next)->second;
}

// `void hn::cuda::kernel<4>(int)` is hn::cuda::kernel; of torch's kernels nothing but that they are.
std::string short_name(const std::string& mangled) {
  int status = 0;
  char* whole = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? whole : mangled;
  std::free(whole);
  name = name.substr(0, name.find_first_of("<("));
  name = name.substr(name.rfind(' ') == std::string::npos ? 0 : name.rfind(' ') + 1);
  return name.compare(0, 4, "hn::") == 0 ? name : "torch";
}

cudaError_t launched(const void* kernel, dim3 g, dim3 b, size_t shared, cudaStream_t stream) {
  Locked s;
  const auto known = s->names.find(kernel);
  const std::string name = known == s->names.end() ? "torch" : known->second;
  ++s->counts["kernel: " + name];
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (threads == 0 || threads > 1024 || b.z > 64 || g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu ||
      g.y > 65535 || g.z > 65535) {
    ++s->counts["violation: a grid or block no GPU takes: " + name];
    return kept(cudaErrorInvalidConfiguration);
  }
  const auto opted = s->dynamic_shared.find(kernel);
  if (shared > (opted == s->dynamic_shared.end() ? kSharedPerBlock : opted->second)) {
    ++s->counts["violation: more shared memory than asked for: " + name];
    return kept(cudaErrorInvalidValue);
  }
  if (s->capturing && stream != s->capturing && mode != cudaStreamCaptureModeRelaxed) {
    ++s->counts["violation: launch on another stream under capture: " + name];
  }
  if (name == "torch" || s->next == cudaSuccess) return cudaSuccess;
  const cudaError_t failure = s->next;
  s->next = cudaSuccess;
  return kept(failure);
}

cudaError_t copied(void* to, const void* from, size_t bytes, bool waits, cudaStream_t stream) {
  Locked s;
  const bool to_device = contains(s->device, to), from_device = contains(s->device, from);
  const bool within = to_device && from_device;
  const bool pinned = within || contains(s->pinned, to_device ? from : to);
  std::string what = within ? "copy: on the device" : to_device ? "copy: to the device" : "copy: from the device";
  if (!pinned) what += ", of pageable memory";
  if (waits) what += ", waiting";
  ++s->counts[what];
  if (s->capturing && mode != cudaStreamCaptureModeRelaxed && (waits || !pinned || stream != s->capturing)) {
    ++s->counts["violation: " + what + " under capture"];
  }
  std::memmove(to, from, bytes);
  return cudaSuccess;
}

// The device does it, in no time of the host's.
cudaError_t filled(void* p, size_t bytes) {
  Locked s;
  if (bytes != 0 && !contains(s->device, static_cast<char*>(p) + bytes - 1)) {
    ++s->counts["violation: a fill of other memory than the device's"];
    return kept(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

int nothing() { return 0; }

}  // namespace

#define DOES_NOTHING(name, ...) \
  cudaError_t name(__VA_ARGS__) { return cudaSuccess; }

extern "C" {

// --- For the test: counters as lines "name<TAB>count", and a failure to come.
void mock_reset() { Locked()->counts.clear(); }
void mock_fail_next(int error) { Locked()->next = cudaError_t(error); }
int mock_counts(char* out, int size) {
  Locked s;
  std::string all;
  for (const auto& c : s->counts) all += c.first + "\t" + std::to_string(c.second) + "\n";
  std::snprintf(out, size_t(size), "%s", all.c_str());
  return int(all.size());
}

// --- Kernels.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Locked()->names[host] = short_name(name);
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* f) {
  *k = reinterpret_cast<cudaKernel_t>(const_cast<void*>(f));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void**, size_t shared, cudaStream_t stream) {
  return launched(k, g, b, shared, stream);
}
cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void**, size_t shared, cudaStream_t stream) {
  return launched(f, g, b, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void**) {
  return launched(f, c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream);
}
cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int value) {
  if (a != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (size_t(value) > kSharedOptIn) return kept(cudaErrorInvalidValue);
  Locked()->dynamic_shared[f] = size_t(value);
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  *a = {};
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->binaryVersion = a->ptxVersion = 90;
  a->maxDynamicSharedSizeBytes = int(kSharedPerBlock);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) {
  *n = 4;
  return cudaSuccess;
}

// --- The device.
int mock_capability() {
  const char* wanted = std::getenv("HN_MOCK_CAPABILITY");
  return wanted ? std::atoi(wanted) : 90;
}
cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* d) { return *d = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int d) { return current_device = d, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* v) { return *v = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* v) { return *v = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(static_cast<void*>(p), 0, sizeof *p);
  std::strcpy(p->name, "a GPU that runs nothing");
  p->totalGlobalMem = kTotal;
  p->sharedMemPerBlock = kSharedPerBlock;
  p->sharedMemPerBlockOptin = kSharedOptIn;
  p->sharedMemPerMultiprocessor = 228 * 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->major = mock_capability() / 10;
  p->minor = mock_capability() % 10;
  p->multiProcessorCount = kProcessors;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->l2CacheSize = 50 << 20;
  p->textureAlignment = 512;
  p->unifiedAddressing = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int d) {
  cudaDeviceProp p;
  cudaGetDeviceProperties(&p, d);
  switch (a) {
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(p.sharedMemPerBlock); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(p.sharedMemPerBlockOptin); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = int(p.sharedMemPerMultiprocessor); break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[1]; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int) {
  return std::snprintf(s, size_t(n), "0000:01:00.0"), cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* most) {
  if (least) *least = 0;
  if (most) *most = -5;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return count_uncaptured("wait: for the device"), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return count_uncaptured("wait: for a stream"), cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return count_uncaptured("wait: for an event"), cudaSuccess; }
DOES_NOTHING(cudaStreamQuery, cudaStream_t)
DOES_NOTHING(cudaEventQuery, cudaEvent_t)
cudaError_t cudaGetLastError() {
  Locked s;
  return std::exchange(s->last, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() { return Locked()->last; }

// --- Memory.
cudaError_t cudaMalloc(void** p, size_t bytes) {
  count_uncaptured("allocation");
  if (posix_memalign(p, 512, std::max<size_t>(bytes, 1)) != 0) return kept(cudaErrorMemoryAllocation);
  Locked()->device[uintptr_t(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  Locked s;
  if (s->device.erase(uintptr_t(p))) std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  if (posix_memalign(p, 4096, std::max<size_t>(bytes, 1)) != 0) return kept(cudaErrorMemoryAllocation);
  Locked()->pinned[uintptr_t(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  Locked s;
  if (s->pinned.erase(uintptr_t(p))) std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
  Locked()->pinned[uintptr_t(p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  Locked()->pinned.erase(uintptr_t(p));
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { return *available = *total = kTotal, cudaSuccess; }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  Locked s;
  *a = {};
  a->type = contains(s->device, p)   ? cudaMemoryTypeDevice
            : contains(s->pinned, p) ? cudaMemoryTypeHost
                                     : cudaMemoryTypeUnregistered;
  a->hostPointer = const_cast<void*>(p);
  if (a->type == cudaMemoryTypeDevice) a->devicePointer = a->hostPointer;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return copied(to, from, bytes, true, nullptr);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return copied(to, from, bytes, false, stream);
}
cudaError_t cudaMemset(void* p, int, size_t bytes) {
  count_uncaptured("fill, waiting");
  return filled(p, bytes);
}
cudaError_t cudaMemsetAsync(void* p, int, size_t bytes, cudaStream_t stream) {
  Locked s;
  ++s->counts["fill"];
  if (s->capturing && stream != s->capturing) ++s->counts["violation: fill on another stream under capture"];
  return filled(p, bytes);
}

// --- Streams, events, graphs.
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) { return new_handle(s), cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return new_handle(s), cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* p) { return *p = 0, cudaSuccess; }
DOES_NOTHING(cudaStreamDestroy, cudaStream_t)
DOES_NOTHING(cudaStreamWaitEvent, cudaStream_t, cudaEvent_t, unsigned)
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t f, void* data) { return f(data), cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return new_handle(e), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return new_handle(e), cudaSuccess; }
DOES_NOTHING(cudaEventDestroy, cudaEvent_t)
DOES_NOTHING(cudaEventRecord, cudaEvent_t, cudaStream_t)
DOES_NOTHING(cudaEventRecordWithFlags, cudaEvent_t, cudaStream_t, unsigned)
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 1, cudaSuccess; }
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* m) { return std::swap(*m, mode), cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Locked s;
  s->capturing = stream;
  ++s->captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* g) {
  Locked()->capturing = nullptr;
  return new_handle(g), cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Locked s;
  *status = s->capturing && stream == s->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  if (id) *id = state().captures;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(1);
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaStreamIsCapturing(stream, status);
}
DOES_NOTHING(cudaStreamUpdateCaptureDependencies, cudaStream_t, cudaGraphNode_t*, const cudaGraphEdgeData*, size_t,
             unsigned)
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* e, cudaGraph_t, unsigned long long) {
  return new_handle(e), cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, size_t* n) { return *n = 1, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return count("graph launch"), cudaSuccess; }
DOES_NOTHING(cudaGraphDestroy, cudaGraph_t)
DOES_NOTHING(cudaGraphExecDestroy, cudaGraphExec_t)
cudaError_t cudaUserObjectCreate(cudaUserObject_t* o, void*, cudaHostFn_t, unsigned, unsigned) {
  return new_handle(o), cudaSuccess;
}
DOES_NOTHING(cudaGraphRetainUserObject, cudaGraph_t, cudaUserObject_t, unsigned, unsigned)
DOES_NOTHING(cudaUserObjectRelease, cudaUserObject_t, unsigned)
DOES_NOTHING(cudaProfilerStart)
DOES_NOTHING(cudaProfilerStop)

// --- The driver, as torch looks for it in libcuda.so.1: a context is there, all else does nothing.
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  if (active) *active = 1;
  return 0;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** f, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *f = std::strcmp(name, "cuDevicePrimaryCtxGetState") == 0 ? reinterpret_cast<void*>(&cuDevicePrimaryCtxGetState)
                                                            : reinterpret_cast<void*>(&nothing);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
}
