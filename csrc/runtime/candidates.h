// The plans of one convolution with the seconds that each takes on this machine.
#pragma once

#include <memory>
#include <vector>

#include "choice.h"
#include "graph.h"
#include "threads.h"

namespace hiddennet::runtime {

// A convolution's weights as plans take them, and what follows its product.
class PreparedConv {
 public:
  PreparedConv(const Graph& graph, const Node& node, int64_t batch);

  // All plans, or the one of that name.
  std::vector<std::unique_ptr<ConvPlan>> plans(bool bf16, const std::string& only = {}) const;
  // What the time of its plans depends on, in words.
  std::string key() const;
  const ConvShape& shape() const { return shape_; }
  bool residual() const { return residual_; }

 private:
  ConvShape shape_;
  std::vector<float> weight_, magnitude_, bias_;
  bool residual_;
  Activation activation_;
  float low_, high_;
  int64_t kept_ = 0;
};

// Measured now, or before on this machine. measures: false gives the first plan alone.
std::vector<Option> conv_options(const PreparedConv& conv, bool bf16, bool measures, Pool& pool);

}  // namespace hiddennet::runtime
