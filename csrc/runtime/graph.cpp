#include "graph.h"

#include <algorithm>
#include <cmath>

#include "../base/isa.h"
#include "error.h"
#include "graph_reader.h"

namespace hiddennet::runtime {
namespace {

void unless_empty(std::vector<double>& numbers, size_t count, double otherwise) {
  if (numbers.empty()) numbers.assign(count, otherwise);
}

// What `then` does after `node`, whose activation is none.
void apply(Node& node, const Node& then) {
  if (!then.scale.empty() || !then.shift.empty()) {
    const auto count = size_t(node.shape.channels);
    unless_empty(node.scale, count, 1.0);
    unless_empty(node.shift, count, 0.0);
    for (size_t i = 0; i < count; ++i) {
      const double scale = then.scale.empty() ? 1.0 : then.scale[i], shift = then.shift.empty() ? 0.0 : then.shift[i];
      node.scale[i] *= scale;
      node.shift[i] = node.shift[i] * scale + shift;
    }
  }
  node.activation = then.activation;
  node.low = then.low;
  node.high = then.high;
}

HN_INLINE void scale_body(float* weight, size_t n, double scale) {
  for (size_t i = 0; i < n; ++i) weight[i] = float(double(weight[i]) * scale);
}

HN_DISPATCH(scale_filter, scale_body)

}  // namespace

Graph::Graph(const File& file, const Weights& weights) : file_(file), weights_(weights) {
  nodes_ = GraphReader(file, weights).read();
  output_ = int(nodes_.size()) - 1;
  if (const Json* output = file.graph().find("output")) output_ = int(output->integer("output", 0, output_));
  fuse();
  drop_unread();
}

// A node that becomes part of the one after it moves to that one's place, where all that both read is there.
void Graph::fuse() {
  std::vector<int> readers(nodes_.size(), 0);
  for (const Node& node : nodes_) {
    for (const int i : node.inputs) ++readers[size_t(i)];
  }
  ++readers[size_t(output_)];
  const auto alone = [&](int i) { return readers[size_t(i)] == 1; };
  const auto move_into = [&](int from, size_t to, Node made) {
    readers[size_t(from)] = 0;
    nodes_[size_t(from)].inputs.clear();
    made.shape = nodes_[to].shape;
    nodes_[to] = std::move(made);
  };
  for (size_t n = 0; n < nodes_.size(); ++n) {
    Node& node = nodes_[n];
    if (node.op == Op::scale && alone(node.inputs[0])) {
      const Node& before = nodes_[size_t(node.inputs[0])];
      const bool pure = node.scale.empty() && node.shift.empty(), open = before.activation == Activation::none;
      const bool scales = before.op == Op::scale || (before.op == Op::conv && !before.residual);
      const bool activates = before.op == Op::conv || before.op == Op::add || before.op == Op::multiply;
      if (!open || !(scales || (pure && activates))) continue;
      Node made = before;
      apply(made, node);
      move_into(node.inputs[0], n, std::move(made));
    } else if (node.op == Op::add) {
      const int pair[2] = {node.inputs[0], node.inputs[1]};
      if (!(nodes_[size_t(pair[0])].shape == nodes_[size_t(pair[1])].shape) || pair[0] == pair[1]) continue;
      for (const int i : {std::max(pair[0], pair[1]), std::min(pair[0], pair[1])}) {
        const Node& before = nodes_[size_t(i)];
        if (before.op != Op::conv || before.residual || before.activation != Activation::none || !alone(i)) continue;
        Node made = before;
        made.residual = true;
        made.inputs.push_back(i == pair[0] ? pair[1] : pair[0]);
        move_into(i, n, std::move(made));
        break;
      }
    }
  }
}

void Graph::drop_unread() {
  std::vector<bool> read(nodes_.size(), false);
  read[0] = read[size_t(output_)] = true;
  for (size_t n = nodes_.size(); n-- > 0;) {
    if (!read[n]) continue;
    for (const int i : nodes_[n].inputs) read[size_t(i)] = true;
  }
  std::vector<int> place(nodes_.size(), -1);
  std::vector<Node> kept;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (!read[n]) continue;
    place[n] = int(kept.size());
    kept.push_back(std::move(nodes_[n]));
    for (int& i : kept.back().inputs) i = place[size_t(i)];
  }
  output_ = place[size_t(output_)];
  nodes_ = std::move(kept);
}

void Graph::weight_of(const Node& node, std::vector<float>& weight) const {
  int64_t count = 1;
  for (const int64_t size : node.weight) count *= size;
  if (node.layer.empty()) {
    weight = file_.floats(node.tensor, count);
  } else {
    weights_.decode(node.layer, weight);
  }
  if (node.scale.empty()) return;
  const size_t filter = weight.size() / node.scale.size();
  for (size_t o = 0; o < node.scale.size(); ++o) scale_filter(weight.data() + o * filter, filter, node.scale[o]);
}

std::vector<float> Graph::magnitudes_of(const Node& node) const {
  const float constant = node.layer.empty() ? 0.0f : weights_.constant(node.layer);
  if (constant == 0.0f) return {};
  std::vector<float> found(size_t(node.weight[0]), constant);
  for (size_t o = 0; o < node.scale.size(); ++o) found[o] = std::fabs(float(double(constant) * node.scale[o]));
  return found;
}

int64_t Graph::kept(const Node& node) const {
  return node.layer.empty() ? node.weight[0] * node.weight[1] * node.weight[2] * node.weight[3]
                            : weights_.kept(node.layer);
}

double Graph::operations() const {
  double sum = 0.0;
  for (const Node& node : nodes_) {
    const double out = double(node.shape.size());
    sum += node.op == Op::conv ? 2.0 * out * double(node.weight[1] * node.kernel[0] * node.kernel[1])
                               : out * double(node.kernel[0] * node.kernel[1]);
  }
  return sum;
}

}  // namespace hiddennet::runtime
