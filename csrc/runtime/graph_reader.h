// The nodes of a graph out of its JSON, each checked against the shapes of what it reads.
#pragma once

#include <string>
#include <vector>

#include "graph.h"

namespace hiddennet::runtime {

class GraphReader {
 public:
  GraphReader(const File& file, const Weights& weights) : file_(file), weights_(weights) {}

  std::vector<Node> read();

 private:
  Node read_node(const Json& entry, size_t number);
  const Shape& input(const Node& node, size_t i = 0) const { return nodes_[size_t(node.inputs[i])].shape; }
  void need_inputs(const Node& node, size_t count) const;

  void convolution(const Json& entry, Node& node, bool linear);
  void norm(const Json& entry, Node& node, bool instance);
  void scale(const Json& entry, Node& node);
  void activation(const Json& entry, Node& node);
  void binary(Node& node);
  void concat(Node& node);
  void pool(const Json& entry, Node& node);
  void adaptive_pool(const Json& entry, Node& node);
  void reshape(const Json& entry, Node& node);
  void slice(const Json& entry, Node& node);
  void pad(const Json& entry, Node& node);
  void constant(const Json& entry, Node& node);
  std::vector<double> channel_numbers(const Json& entry, const char* key, int64_t channels, double otherwise) const;

  const File& file_;
  const Weights& weights_;
  std::vector<Node> nodes_;
};

}  // namespace hiddennet::runtime
