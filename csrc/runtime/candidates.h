// The plans of one convolution with the seconds that each takes on this machine.
#pragma once

#include <memory>
#include <vector>

#include "choice.h"
#include "graph.h"
#include "threads.h"

namespace hiddennet::runtime {

ConvShape conv_shape(const Graph& graph, const Node& node, int64_t batch);

// A convolution's weights as plans take them, and what follows its product.
class PreparedConv {
 public:
  // memory: of the weights, used again from one to the next; it must outlive this.
  PreparedConv(const Graph& graph, const Node& node, int64_t batch, std::vector<float>& memory);

  // All plans, or the one of that name.
  std::vector<std::unique_ptr<ConvPlan>> plans(bool bf16, const std::string& only = {}) const;
  const ConvShape& shape() const { return shape_; }
  bool residual() const { return residual_; }

 private:
  ConvShape shape_;
  const std::vector<float>& weight_;
  std::vector<float> magnitude_, bias_;
  bool residual_;
  Activation activation_;
  float low_, high_;
};

// Measured now, or before on this machine. measures: false gives the first plan alone.
std::vector<Option> conv_options(const Graph& graph, const Node& node, int64_t batch, bool bf16, bool measures,
                                 Pool& pool, std::vector<float>& memory);

}  // namespace hiddennet::runtime
