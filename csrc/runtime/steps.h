// What is not a convolution, as steps that the executor runs: loops over values in any layout.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graph.h"
#include "layout.h"

namespace hiddennet::runtime {

// Pieces that may run at once, each on a thread.
struct Step {
  int64_t tasks = 0;
  std::function<void(int64_t task, int thread)> run;
};

// What a node reads and writes: all in one layout.
struct Operands {
  Layout layout;
  int64_t batch;
  std::vector<const void*> inputs;
  std::vector<Shape> shapes;  // of the inputs
  void* output;
};

// Of any node but input, constant, convolution and reshape.
Step make_step(const Node& node, const Operands& operands);

Step scale_step(const Node& node, const Operands& operands);
Step binary_step(const Node& node, const Operands& operands);
Step concat_step(const Node& node, const Operands& operands);
Step slice_step(const Node& node, const Operands& operands);
Step shuffle_step(const Node& node, const Operands& operands);
Step softmax_step(const Node& node, const Operands& operands);
Step pool_step(const Node& node, const Operands& operands);
Step pad_step(const Node& node, const Operands& operands);
Step instance_norm_step(const Node& node, const Operands& operands);

}  // namespace hiddennet::runtime
