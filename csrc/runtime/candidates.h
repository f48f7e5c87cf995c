// The plans of one convolution with the seconds that each takes on this machine.
#pragma once

#include <memory>
#include <vector>

#include "choice.h"
#include "graph.h"
#include "threads.h"

namespace hiddennet::runtime {

ConvShape conv_shape(const Graph& graph, const Node& node, int64_t batch);

// Whether a convolution of these layouts runs image by image: in nchw_f32 or parts_f32 an image goes through all that follow one
// another, so that its maps stay in a core's cache; a thread then has an image. Its plan is of one image.
bool is_by_image(Layout input, Layout output, int64_t batch, int threads);

// A convolution's weights as plans take them, and what follows its product.
class PreparedConv {
 public:
  // memory: of the weights, used again from one to the next; it must outlive this.
  PreparedConv(const Graph& graph, const Node& node, int64_t batch, std::vector<float>& memory);

  // All plans, or the one of that name.
  std::vector<std::unique_ptr<ConvPlan>> plans(bool bf16, const std::string& only = {}) const;
  // The same for another batch size.
  PreparedConv of_batch(int64_t batch) const {
    PreparedConv made = *this;
    made.shape_.batch = batch;
    return made;
  }
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

// Measured before on this machine; empty: not yet.
std::vector<Option> known_options(const Graph& graph, const Node& node, int64_t batch, bool bf16, const Pool& pool);

// Measured now.
std::vector<Option> measured_options(const Graph& graph, const Node& node, int64_t batch, bool bf16, Pool& pool,
                                     std::vector<float>& memory);

// By the work that there is, for one thread: the same on every run and for any number of threads.
std::vector<Option> estimated_options(const Graph& graph, const Node& node, int64_t batch, bool bf16);

}  // namespace hiddennet::runtime
