#include <exception>
#include <new>
#include <string>

#include "hiddennet_runtime.h"
#include "network.h"

struct hn_network {
  hiddennet::runtime::Network network;
};

namespace {

using namespace hiddennet::runtime;

std::string& last_error() {
  thread_local std::string text;
  return text;
}

// Calls f, and keeps what it throws.
template <class F>
bool guarded(const F& f) noexcept {
  try {
    f();
    return true;
  } catch (const std::bad_alloc&) {
    last_error() = "hiddennet.runtime: expected more memory, got none; take a smaller batch";
  } catch (const std::exception& error) {
    last_error() = error.what();
  } catch (...) {
    last_error() = "hiddennet.runtime: an unknown error";
  }
  return false;
}

int dims_of(const Shape& shape, int64_t* dims) {
  dims[0] = shape.channels;
  if (shape.rank == 3) dims[1] = shape.width;
  if (shape.rank == 4) {
    dims[1] = shape.height;
    dims[2] = shape.width;
  }
  return shape.rank - 1;
}

}  // namespace

extern "C" {

hn_network* hn_load(const char* path, int threads, int bf16) {
  hn_network* made = nullptr;
  guarded([&] {
    const Bf16 wish = bf16 < 0 ? Bf16::automatic : bf16 == 0 ? Bf16::off : Bf16::on;
    made = new hn_network{{File::open(path == nullptr ? "" : path), threads, wish}};
  });
  return made;
}

int hn_input_shape(const hn_network* network, int64_t dims[3]) { return dims_of(network->network.input_shape(), dims); }

int hn_output_shape(const hn_network* network, int64_t dims[3]) {
  return dims_of(network->network.output_shape(), dims);
}

int hn_run(hn_network* network, const float* x, int64_t batch, int layout, float* y) {
  const auto order = layout == HN_NHWC ? Layout::nhwc_f32 : Layout::nchw_f32;
  return guarded([&] { network->network.run(x, batch, order, y); }) ? 0 : -1;
}

void hn_free(hn_network* network) { delete network; }

const char* hn_error(void) { return last_error().c_str(); }

}  // extern "C"
