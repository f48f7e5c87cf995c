// device.h: what a kernel test needs of a device: buffers, thread orders, sizes, numbers. The same
// test source runs in the SIMT shim (g++) and on a GPU (nvcc).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/launch.cuh"
#include "check.h"

namespace hn {
namespace test {

// Device memory of exactly n elements, 256-byte aligned; poisoned unless made from values.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n) : n_(n) {
    allocate();
    fill(0xff);
  }
  explicit Buffer(const std::vector<T>& values) : n_(values.size()) {
    allocate();
    write(values);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return n_; }
  size_t bytes() const { return n_ * sizeof(T); }

#if defined(__CUDACC__)
  ~Buffer() { cudaFree(data_); }
  void fill(uint8_t byte) { expect(cudaMemset(data_, byte, bytes())); }
  void write(const std::vector<T>& values) {
    expect(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> read() const {
    std::vector<T> values(n_);
    expect(cudaMemcpy(values.data(), data_, bytes(),
                      cudaMemcpyDeviceToHost));  // waits for the kernels before it
    return values;
  }

 private:
  static void expect(cudaError_t error) {
    if (error != cudaSuccess) throw Failure(cudaGetErrorString(error));
  }
  void allocate() { expect(cudaMalloc(&data_, std::max<size_t>(bytes(), 1))); }
#else
  ~Buffer() { std::free(data_); }
  void fill(uint8_t byte) { std::memset(static_cast<void*>(data_), byte, bytes()); }
  void write(const std::vector<T>& values) {
    if (n_) std::memcpy(static_cast<void*>(data_), values.data(), bytes());
  }
  std::vector<T> read() const { return std::vector<T>(data_, data_ + n_); }

 private:
  void allocate() {
    void* p = nullptr;
    if (posix_memalign(&p, 256, std::max<size_t>(bytes(), 1)) != 0) throw std::bad_alloc();
    data_ = static_cast<T*>(p);
  }
#endif
  T* data_ = nullptr;
  size_t n_;
};

#if defined(__CUDACC__)

// Calls run() twice and requires equal bits; returns them.
template <class F>
auto same_in_every_order(F run) {
  const auto first = run();
  CHECK_EQ(run(), first);
  return first;
}

#else

// Sanitizers look for other mistakes than those of an order, and are slow: two are enough for them.
inline std::vector<std::pair<std::string, simt::Order> > orders() {
#if defined(HN_SIMT_ASAN)
  return {{"forward order", {simt::Order::kForward, 0}}, {"reversed order", {simt::Order::kReversed, 0}}};
#else
  return {{"forward order", {simt::Order::kForward, 0}},
          {"reversed order", {simt::Order::kReversed, 0}},
          {"shuffled order, seed 1", {simt::Order::kShuffled, 1}},
          {"shuffled order, seed 2", {simt::Order::kShuffled, 2}}};
#endif
}

// Calls f() under every order of threads and blocks.
template <class F>
void in_every_order(F f) {
  struct Restore {
    ~Restore() { simt::set_order({}); }
  } restore;
  for (const auto& o : orders()) {
    const Context in(o.first);
    simt::set_order(o.second);
    f();
  }
}

// run() makes its buffers, launches and returns a vector: the bits must not depend on the order.
// Returns them.
template <class F>
auto same_in_every_order(F run) {
  decltype(run()) first;
  bool have = false;
  in_every_order([&] {
    auto now = run();
    if (have) CHECK_EQ(now, first);
    first = std::move(now);
    have = true;
  });
  return first;
}

#endif

// Around the edges of warps, blocks, vectors and powers of two.
inline std::vector<int> awkward_sizes() { return {0, 1, 31, 32, 33, 255, 1025, 4099}; }

// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return uint32_t((bits() >> 32) * n >> 32); }
  float uniform() { return float(int64_t(bits() >> 40)) * 5.9604644775390625e-08f; }  // [0, 1)
  float symmetric() { return 2.0f * uniform() - 1.0f; }                               // [-1, 1)

 private:
  uint64_t state_;
};

}  // namespace test
}  // namespace hn
