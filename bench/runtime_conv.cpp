// runtime_conv.cpp: the plans of the runtime, layer by layer: dense-equivalent GF/s of one thread, by CPU time, the best of
// several runs. g++ -O3 -std=c++17 -ffp-contract=off -I csrc bench/runtime_conv.cpp csrc/runtime/conv/*.cpp -o /tmp/bench
// /tmp/bench [batch] [part of a plan's name] [part of a layer's name]; HIDDENNET_ISA holds the instruction set back.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <vector>

#include "runtime/conv/plans.h"

namespace rt = hiddennet::runtime;

namespace {

double seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory memory(size_t bytes) {
  Memory m(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
  std::memset(m.get(), 0, (bytes + 127) / 64 * 64);
  return m;
}

struct Layer {
  const char* name;
  int64_t in, map, out, kernel, stride;
  int times;  // in the network
};

const Layer kLayers[] = {
    {"r18 3 to 64, 3x3 @32", 3, 32, 64, 3, 1, 1},      {"r18 64 to 64, 3x3 @32", 64, 32, 64, 3, 1, 4},
    {"r18 64 to 128, 3x3/2", 64, 32, 128, 3, 2, 1},    {"r18 64 to 128, 1x1/2", 64, 32, 128, 1, 2, 1},
    {"r18 128 to 128, 3x3 @16", 128, 16, 128, 3, 1, 3}, {"r18 128 to 256, 3x3/2", 128, 16, 256, 3, 2, 1},
    {"r18 128 to 256, 1x1/2", 128, 16, 256, 1, 2, 1},  {"r18 256 to 256, 3x3 @8", 256, 8, 256, 3, 1, 3},
    {"r18 256 to 512, 3x3/2", 256, 8, 512, 3, 2, 1},   {"r18 256 to 512, 1x1/2", 256, 8, 512, 1, 2, 1},
    {"r18 512 to 512, 3x3 @4", 512, 4, 512, 3, 1, 3},  {"r18 head", 512, 1, 10, 1, 1, 1},
    {"r50 3 to 64, 7x7/2", 3, 224, 64, 7, 2, 1},       {"r50 64 to 64, 1x1 @56", 64, 56, 64, 1, 1, 1},
    {"r50 64 to 64, 3x3 @56", 64, 56, 64, 3, 1, 3},    {"r50 64 to 256, 1x1 @56", 64, 56, 256, 1, 1, 4},
    {"r50 256 to 64, 1x1 @56", 256, 56, 64, 1, 1, 2},  {"r50 256 to 128, 1x1 @56", 256, 56, 128, 1, 1, 1},
    {"r50 128 to 128, 3x3/2", 128, 56, 128, 3, 2, 1},  {"r50 128 to 512, 1x1 @28", 128, 28, 512, 1, 1, 4},
    {"r50 256 to 512, 1x1/2", 256, 56, 512, 1, 2, 1},  {"r50 512 to 128, 1x1 @28", 512, 28, 128, 1, 1, 3},
    {"r50 128 to 128, 3x3 @28", 128, 28, 128, 3, 1, 3}, {"r50 512 to 256, 1x1 @28", 512, 28, 256, 1, 1, 1},
    {"r50 256 to 256, 3x3/2", 256, 28, 256, 3, 2, 1},  {"r50 256 to 1024, 1x1 @14", 256, 14, 1024, 1, 1, 6},
    {"r50 512 to 1024, 1x1/2", 512, 28, 1024, 1, 2, 1}, {"r50 1024 to 256, 1x1 @14", 1024, 14, 256, 1, 1, 5},
    {"r50 256 to 256, 3x3 @14", 256, 14, 256, 3, 1, 5}, {"r50 1024 to 512, 1x1 @14", 1024, 14, 512, 1, 1, 1},
    {"r50 512 to 512, 3x3/2", 512, 14, 512, 3, 2, 1},  {"r50 512 to 2048, 1x1 @7", 512, 7, 2048, 1, 1, 3},
    {"r50 1024 to 2048, 1x1/2", 1024, 14, 2048, 1, 2, 1}, {"r50 2048 to 512, 1x1 @7", 2048, 7, 512, 1, 1, 2},
    {"r50 512 to 512, 3x3 @7", 512, 7, 512, 3, 1, 2},  {"r50 head", 2048, 1, 1000, 1, 1, 1},
};

// Milliseconds, the best of runs over at least 50 ms.
double time_of(const rt::ConvPlan& plan, const void* x, const void* residual, void* y, void* workspace) {
  double best = 1e9, total = 0.0;
  for (int i = 0; i < 3 || total < 0.15; ++i) {
    const double start = seconds();
    for (int64_t task = 0; task < plan.tasks(); ++task) plan.run(x, residual, y, workspace, task);
    const double took = seconds() - start;
    best = std::min(best, took);
    total += took;
  }
  return best * 1e3;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t batch = argc > 1 ? std::atoll(argv[1]) : 32;
  const char *plan_part = argc > 2 ? argv[2] : "", *layer_part = argc > 3 ? argv[3] : "r18";
  std::mt19937 random(1);
  const double densities[] = {0.5, 0.3, 0.1};
  double sums[3] = {};
  for (const Layer& l : kLayers) {
    if (std::strstr(l.name, layer_part) == nullptr) continue;
    const int64_t pad = l.kernel / 2;
    const rt::ConvShape s = {batch, l.in, l.map, l.map, l.out, l.kernel, l.kernel, l.stride, l.stride,
                             pad, pad, pad, pad, 1, 1, 1};
    const size_t inputs = size_t(batch * l.in * l.map * l.map);
    const size_t outputs = size_t(batch * l.out * s.out_height() * s.out_width());
    const double flops = 2.0 * double(s.weights()) * double(batch * s.out_height() * s.out_width());
    Memory x = memory(inputs * 4), residual = memory(outputs * 4), y = memory(outputs * 4);
    std::printf("%-26s", l.name);
    for (int d = 0; d < 3; ++d) {
      std::vector<float> values(size_t(s.weights())), magnitude(size_t(l.out), 0.05f);
      for (float& v : values) {
        const bool kept = double(random() % 100000) < densities[d] * 100000;
        v = kept ? (random() % 2 ? 0.05f : -0.05f) : 0.0f;
      }
      const rt::Epilogue epilogue = {magnitude.data(), true, rt::Activation::relu, 0, 0};
      double best = 1e9;
      std::printf(" | %3.0f %%", densities[d] * 100);
      for (const auto& plan : rt::fast_conv_plans(s, {values.data(), magnitude.data()}, epilogue, true, "")) {
        if (std::strstr(plan->name().c_str(), plan_part) == nullptr) continue;
        Memory workspace = memory(plan->workspace_bytes());
        const double ms = time_of(*plan, x.get(), residual.get(), y.get(), workspace.get());
        std::printf(" %s %.0f (%.2f ms)", plan->name().c_str(), flops / ms * 1e-6, ms);
        best = std::min(best, ms);
      }
      if (best < 1e9) sums[d] += best * l.times;
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  std::printf("the best plans, summed as often as layers stand in the network: %.2f, %.2f, %.2f ms\n", sums[0], sums[1],
              sums[2]);
  return 0;
}
