// What a network computes: nodes in an order in which each follows what it reads, with the shape of every value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conv_plan.h"
#include "file.h"
#include "weights.h"

namespace hiddennet::runtime {

// Of one sample. rank: of the tensor with its batch: 2 is [batch, channels], 3 [batch, channels, width], 4 an image.
struct Shape {
  int64_t channels = 0, height = 1, width = 1;
  int rank = 4;

  int64_t size() const { return channels * height * width; }
  bool operator==(const Shape& other) const {
    return channels == other.channels && height == other.height && width == other.width && rank == other.rank;
  }
};

enum class Op {
  input,
  conv,   // also linear layers, of 1 x 1 pixels
  scale,  // activation(scale x + shift), a number a channel each
  add,
  multiply,  // of two values; the second may have one pixel, or one channel
  concat,    // of channels
  max_pool,
  average_pool,
  adaptive_max_pool,
  adaptive_average_pool,
  reshape,  // the same numbers in the order of [channels][height][width]
  slice,    // channels [first, first + channels)
  shuffle,  // channel c of g groups comes from the group c % g, where it is number c / g
  pad,      // with a constant; or a crop, by pads below 0
  softmax,
  log_softmax,
  instance_norm,  // then scale and shift
  constant,
};

struct Node {
  Op op = Op::input;
  std::string name;         // of the layer, else of the operation
  std::vector<int> inputs;  // nodes; of a convolution with a residual that is the last
  Shape shape;              // of its value

  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1}, groups = 1;
  int64_t pads[4] = {0, 0, 0, 0};  // top, left, bottom, right
  bool count_pads = true;          // of average_pool
  int64_t divisor = 0;             // of average_pool; 0: the window's pixels
  int64_t first = 0;               // of slice
  double epsilon = 0.0;            // of instance_norm
  float value = 0.0f;              // of pad

  std::string layer, tensor;         // where a convolution's weight is: a hidden layer, or a tensor
  std::vector<int64_t> weight;       // its shape, OIHW
  std::vector<double> scale, shift;  // [channels] or empty; of a convolution's output, too: a batch norm, a bias
  std::vector<float> numbers;        // of constant: [channels][height][width]
  bool residual = false;
  Activation activation = Activation::none;
  float low = 0.0f, high = 0.0f;
};

class Graph {
 public:
  // Throws Error where the file's graph is not one that this version runs.
  Graph(const File& file, const Weights& weights);

  const std::vector<Node>& nodes() const { return nodes_; }
  int output() const { return output_; }
  const Shape& input_shape() const { return nodes_.front().shape; }
  const Shape& output_shape() const { return nodes_[size_t(output_)].shape; }
  // The weight of a convolution with its scale: OIHW, into `weight`.
  void weight_of(const Node& node, std::vector<float>& weight) const;
  // The magnitude that all weights of each of its output channels have, or 0; empty where they have several.
  std::vector<float> magnitudes_of(const Node& node) const;
  // How many weights of a convolution are not masked.
  int64_t kept(const Node& node) const;
  // Multiplications and additions of a sample.
  double operations() const;

 private:
  friend class GraphReader;
  void fuse();
  void drop_unread();

  const File& file_;
  const Weights& weights_;
  std::vector<Node> nodes_;
  int output_ = 0;
};

}  // namespace hiddennet::runtime
