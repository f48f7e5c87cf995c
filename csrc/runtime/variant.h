// A network made ready for one batch size: plans chosen, layouts settled, memory laid out.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "choice.h"
#include "graph.h"
#include "memory.h"
#include "steps.h"
#include "threads.h"

namespace hiddennet::runtime {

// Where the plans' seconds come from: what was measured before on this machine where that is all, else estimates; what is
// measured now where it was not; estimates.
enum class Plans { automatic, measured, fixed };

struct Options {
  bool bf16 = false;
  Plans plans = Plans::automatic;
};

class Variant {
 public:
  // layout: of what comes in and goes out, nhwc_f32 or nchw_f32.
  Variant(const Graph& graph, int64_t batch, Layout layout, const Options& options, Pool& pool);

  void run(const float* x, float* y);
  // Of the nodes of the graph; null where it is no convolution.
  const ConvPlan* plan(size_t node) const { return plans_[node].get(); }
  size_t activation_bytes() const { return memory_->size(); }

 private:
  // A node's value in one layout.
  struct Buffer {
    int node;
    Layout layout;
    bool operator<(const Buffer& other) const { return node != other.node ? node < other.node : layout < other.layout; }
  };
  class Builder;

  Pool& pool_;
  std::vector<std::unique_ptr<ConvPlan>> plans_;
  std::unique_ptr<Block> memory_, workspace_;
  std::vector<std::unique_ptr<Block>> constants_;
  size_t workspace_each_ = 0;
  std::vector<Step> steps_;
  const float* x_ = nullptr;
  float* y_ = nullptr;
};

}  // namespace hiddennet::runtime
