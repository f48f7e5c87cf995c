// A network that runs: a file's graph and weights, with variants for the batch sizes that came.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "file.h"
#include "graph.h"
#include "threads.h"
#include "variant.h"
#include "weights.h"

namespace hiddennet::runtime {

enum class Bf16 { automatic, on, off };

struct LayerReport {
  std::string name, plan;  // plan: of the batch size that ran last; empty before
  std::vector<int64_t> shape;
  int64_t kept, weights;
  size_t bytes;  // that the plan keeps for the weights
};

class Network {
 public:
  // threads: 0 for what HIDDENNET_THREADS says, or as many as there are cores.
  Network(File file, int threads, Bf16 bf16);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // x: [batch] samples of input_shape, y: [batch] of output_shape; both in the layout, nchw_f32 or nhwc_f32. One call at a
  // time runs; others wait.
  void run(const float* x, int64_t batch, Layout layout, float* y);

  const Shape& input_shape() const { return graph_.input_shape(); }
  const Shape& output_shape() const { return graph_.output_shape(); }
  int threads() const { return pool_.threads(); }
  bool bf16() const { return options_.bf16; }
  double operations() const { return graph_.operations(); }
  std::vector<LayerReport> layers();
  // A hidden layer's weight as the file has it, without the scale of a norm.
  std::vector<float> weight(const std::string& layer) const {
    std::vector<float> found;
    weights_.decode(layer, found);
    return found;
  }

 private:
  struct Held {
    int64_t batch;
    Layout layout;
    std::unique_ptr<Variant> variant;
  };
  // What calls change, one at a time. After a fork the child has a fresh one: a thread that it does not have may hold the
  // parent's for ever, and have left it half changed.
  struct State {
    int process;
    std::mutex mutex{};
    std::list<Held> held{};  // the last used first
  };
  State& state();
  Variant& variant(State& state, int64_t batch, Layout layout);

  const File file_;
  const Weights weights_;
  const Graph graph_;
  Options options_;
  Pool pool_;
  std::atomic<State*> state_;
};

}  // namespace hiddennet::runtime
