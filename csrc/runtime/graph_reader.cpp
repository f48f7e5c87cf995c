#include "graph_reader.h"

#include <cmath>
#include <limits>

#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kMostSide = int64_t(1) << 24;   // of anything a graph counts in pixels or channels
constexpr int64_t kMostValue = int64_t(1) << 28;  // numbers of a value of one sample: 1 GiB
constexpr size_t kMostNodes = size_t(1) << 16;

struct NamedActivation {
  const char* name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {{"relu", Activation::relu},
                                            {"clamp", Activation::clamp},
                                            {"leaky_relu", Activation::leaky_relu},
                                            {"silu", Activation::silu},
                                            {"hardswish", Activation::hard_swish},
                                            {"hardsigmoid", Activation::hard_sigmoid},
                                            {"sigmoid", Activation::sigmoid},
                                            {"gelu", Activation::gelu},
                                            {"tanh", Activation::tanh}};

void check_size(const Node& node) {
  const Shape& s = node.shape;
  if (s.channels < 1 || s.height < 1 || s.width < 1 || s.channels > kMostValue || s.height > kMostValue ||
      s.width > kMostValue || s.height * s.width > kMostValue || s.channels * (s.height * s.width) > kMostValue) {
    fail("expected ", node.name, " to make between 1 and 2^28 numbers of a sample, got ", s.channels, " x ", s.height,
         " x ", s.width);
  }
  // what callers hear of a shape of these ranks leaves pixels out
  if ((s.rank == 2 && s.width != 1) || (s.rank < 4 && s.height != 1)) {
    fail("expected ", node.name, " to make a value of ", s.rank == 2 ? "features" : "lines", ", got ", s.channels,
         " x ", s.height, " x ", s.width, "; export the file again");
  }
}

Shape shape_of(const Json& dims) {
  const auto& sizes = dims.list("a shape");
  if (sizes.empty() || sizes.size() > 3) fail("expected shapes of 1 to 3 dimensions, got ", sizes.size());
  std::vector<int64_t> found;
  for (const Json& size : sizes) found.push_back(size.integer("a shape", 1, kMostValue));
  if (found.size() == 1) return {found[0], 1, 1, 2};
  if (found.size() == 2) return {found[0], 1, found[1], 3};
  return {found[0], found[1], found[2], 4};
}

void read_pair(const Json& entry, const char* key, int64_t* pair, int64_t low) {
  if (const Json* found = entry.find(key)) {
    const auto numbers = found->integers(key, 2, low, kMostSide);
    pair[0] = numbers[0];
    pair[1] = numbers[1];
  }
}

void read_pads(const Json& entry, Node& node, int64_t least = 0) {
  if (const Json* found = entry.find("pads")) {
    const auto numbers = found->integers("pads", 4, least, kMostSide);
    for (size_t i = 0; i < 4; ++i) node.pads[i] = numbers[i];
  }
}

// A number, or the text inf or -inf, which JSON has no number for.
float pad_value(const Json& value) {
  if (value.kind() != Json::Kind::text) return float(value.number("value"));
  const std::string& text = value.text("value");
  if (text != "inf" && text != "-inf") fail("expected value to be a number, inf or -inf, got ", text);
  return (text == "inf" ? 1.0f : -1.0f) * std::numeric_limits<float>::infinity();
}

// One side of a window's output.
int64_t side(const Node& node, int64_t size, int axis, bool ceil) {
  const int64_t before = node.pads[axis], padded = size + before + node.pads[axis + 2];
  const int64_t room = padded - node.dilation[axis] * (node.kernel[axis] - 1) - 1, stride = node.stride[axis];
  if (room < 0) {
    fail("expected ", node.name, " to fit into its input, got a window of ", node.kernel[axis], " on ", padded,
         " pixels");
  }
  int64_t out = (room + (ceil ? stride - 1 : 0)) / stride + 1;
  if (ceil && (out - 1) * stride >= size + before) --out;
  return out;
}

}  // namespace

std::vector<Node> GraphReader::read() {
  const Json& graph = file_.graph();
  const int64_t version = graph.at("version").integer("the graph's version", 1, INT32_MAX);
  if (version != 1) fail("expected a graph of version 1, got ", version, "; upgrade hiddennet-runtime");
  Node first;
  first.name = "input";
  first.shape = shape_of(graph.at("input"));
  check_size(first);
  nodes_.push_back(std::move(first));
  const auto& entries = graph.at("nodes").list("nodes");
  if (entries.size() > kMostNodes) fail("expected at most ", kMostNodes, " nodes in a graph, got ", entries.size());
  for (const Json& entry : entries) {
    Node node = read_node(entry, nodes_.size());
    check_size(node);
    nodes_.push_back(std::move(node));
  }
  return std::move(nodes_);
}

void GraphReader::need_inputs(const Node& node, size_t count) const {
  if (node.inputs.size() != count) {
    fail("expected ", node.name, " to read ", count, " values, got ", node.inputs.size());
  }
}

Node GraphReader::read_node(const Json& entry, size_t number) {
  Node node;
  const std::string& op = entry.at("op").text("an operation");
  const Json* name = entry.find("name");
  node.name = name == nullptr ? op : name->text("a name");
  for (const Json& read : entry.at("in").list("in")) {
    node.inputs.push_back(int(read.integer("in", 0, int64_t(number) - 1)));
  }
  if (op == "constant") {
    need_inputs(node, 0);
    constant(entry, node);
    return node;
  }
  if (op == "concat") {
    concat(node);
    return node;
  }
  need_inputs(node, op == "add" || op == "multiply" ? 2 : 1);
  node.shape = input(node);
  if (op == "conv" || op == "linear") {
    convolution(entry, node, op == "linear");
  } else if (op == "norm" || op == "instance_norm") {
    norm(entry, node, op == "instance_norm");
  } else if (op == "scale") {
    scale(entry, node);
  } else if (op == "activation") {
    activation(entry, node);
  } else if (op == "add" || op == "multiply") {
    node.op = op == "add" ? Op::add : Op::multiply;
    binary(node);
  } else if (op == "max_pool" || op == "average_pool") {
    node.op = op == "max_pool" ? Op::max_pool : Op::average_pool;
    pool(entry, node);
  } else if (op == "adaptive_max_pool" || op == "adaptive_average_pool") {
    node.op = op == "adaptive_max_pool" ? Op::adaptive_max_pool : Op::adaptive_average_pool;
    adaptive_pool(entry, node);
  } else if (op == "reshape") {
    reshape(entry, node);
  } else if (op == "slice") {
    slice(entry, node);
  } else if (op == "pad") {
    pad(entry, node);
  } else if (op == "softmax" || op == "log_softmax") {
    node.op = op == "softmax" ? Op::softmax : Op::log_softmax;
  } else if (op == "shuffle") {
    node.op = Op::shuffle;
    node.groups = entry.at("groups").integer("groups", 1, node.shape.channels);
    if (node.shape.channels % node.groups != 0) {
      fail("expected ", node.name, " of a multiple of ", node.groups, " channels, got ", node.shape.channels);
    }
  } else {
    fail("expected an operation that this version knows, got ", op, "; upgrade hiddennet-runtime");
  }
  return node;
}

void GraphReader::convolution(const Json& entry, Node& node, bool linear) {
  node.op = Op::conv;
  const Json& weight = entry.at("weight");
  std::vector<int64_t> shape;
  if (const Json* layer = weight.find("layer")) {
    node.layer = layer->text("a layer");
    const auto* found = weights_.shape(node.layer);
    if (found == nullptr) fail("expected a hidden layer ", node.layer, " in the file, got none; export it again");
    shape = *found;
  } else {
    node.tensor = weight.at("tensor").text("a tensor");
    const StoredTensor* found = file_.find(node.tensor);
    if (found == nullptr) fail("expected a tensor ", node.tensor, " in the file, got none; export it again");
    shape = found->shape;
  }
  if (shape.size() == 2 && node.shape.rank == 4 && !linear) shape.resize(4, 1);
  const size_t dims = linear ? 2 : node.shape.rank == 3 ? 3 : 4;
  if (shape.size() != dims || (linear && node.shape.rank != 2) || (!linear && node.shape.rank == 2)) {
    fail("expected a weight of ", dims, " dimensions for ", node.name, " on an input of ", node.shape.rank, ", got ",
         shape.size());
  }
  if (dims == 3) shape.insert(shape.begin() + 2, 1);
  shape.resize(4, 1);
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 1 || size > INT32_MAX / count)
      fail("expected a weight below 2^31 elements for ", node.name, ", got more");
    count *= size;
  }
  node.weight = shape;
  node.kernel[0] = shape[2];
  node.kernel[1] = shape[3];
  read_pair(entry, "stride", node.stride, 1);
  read_pair(entry, "dilation", node.dilation, 1);
  read_pads(entry, node);
  if (const Json* groups = entry.find("groups")) node.groups = groups->integer("groups", 1, kMostSide);
  if (shape[1] * node.groups != node.shape.channels || shape[0] % node.groups != 0) {
    fail("expected ", node.name, " to read ", shape[1] * node.groups, " channels and make a multiple of ", node.groups,
         ", got ", node.shape.channels, " and ", shape[0]);
  }
  node.shape.channels = shape[0];
  node.shape.height = side(node, node.shape.height, 0, false);
  node.shape.width = side(node, node.shape.width, 1, false);
  if (entry.find("bias") != nullptr) node.shift = channel_numbers(entry, "bias", shape[0], 0.0);
}

// A number for all channels, or the name of a tensor of one each.
std::vector<double> GraphReader::channel_numbers(const Json& entry, const char* key, int64_t channels,
                                                 double otherwise) const {
  const Json* found = entry.find(key);
  if (found == nullptr || found->is_null()) return std::vector<double>(size_t(channels), otherwise);
  if (found->kind() != Json::Kind::text) return std::vector<double>(size_t(channels), found->number(key));
  const std::vector<float> numbers = file_.floats(found->text(key), channels);
  return {numbers.begin(), numbers.end()};
}

void GraphReader::norm(const Json& entry, Node& node, bool instance) {
  const int64_t channels = node.shape.channels;
  node.op = instance ? Op::instance_norm : Op::scale;
  node.epsilon = entry.at("eps").number("eps");
  node.scale = channel_numbers(entry, "weight", channels, 1.0);
  node.shift = channel_numbers(entry, "bias", channels, 0.0);
  if (instance) return;
  const auto mean = channel_numbers(entry, "mean", channels, 0.0),
             variance = channel_numbers(entry, "var", channels, 1.0);
  for (size_t i = 0; i < mean.size(); ++i) {
    node.scale[i] /= std::sqrt(variance[i] + node.epsilon);
    node.shift[i] -= mean[i] * node.scale[i];
  }
}

void GraphReader::scale(const Json& entry, Node& node) {
  node.op = Op::scale;
  node.scale = channel_numbers(entry, "scale", node.shape.channels, 1.0);
  node.shift = channel_numbers(entry, "shift", node.shape.channels, 0.0);
}

void GraphReader::activation(const Json& entry, Node& node) {
  node.op = Op::scale;
  const std::string& wanted = entry.at("kind").text("an activation");
  for (const NamedActivation& known : kActivations) {
    if (wanted != known.name) continue;
    node.activation = known.activation;
    if (const Json* low = entry.find("low")) node.low = float(low->number("low"));
    if (const Json* high = entry.find("high")) node.high = float(high->number("high"));
    return;
  }
  fail("expected an activation that this version knows, got ", wanted, "; upgrade hiddennet-runtime");
}

void GraphReader::binary(Node& node) {
  const Shape &a = input(node), &b = input(node, 1);
  const bool pixels = b.height == a.height && b.width == a.width, one = b.height == 1 && b.width == 1;
  const bool fits = a.rank == b.rank && (b.channels == a.channels ? pixels || one : b.channels == 1 && (pixels || one));
  if (!fits) {
    fail("expected ", node.name, " of two values of one shape, or the second of one pixel or one channel, got ",
         a.channels, " x ", a.height, " x ", a.width, " and ", b.channels, " x ", b.height, " x ", b.width);
  }
}

void GraphReader::concat(Node& node) {
  node.op = Op::concat;
  if (node.inputs.empty()) fail("expected ", node.name, " to read values, got none");
  node.shape = input(node);
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    const Shape& other = input(node, i);
    node.shape.channels += other.channels;
    if (other.height != node.shape.height || other.width != node.shape.width || other.rank != node.shape.rank) {
      fail("expected ", node.name, " to read values of one size, got ", node.shape.height, " x ", node.shape.width,
           " and ", other.height, " x ", other.width);
    }
    if (node.shape.channels > kMostValue) break;
  }
}

void GraphReader::pool(const Json& entry, Node& node) {
  read_pair(entry, "kernel", node.kernel, 1);
  read_pair(entry, "stride", node.stride, 1);
  read_pair(entry, "dilation", node.dilation, 1);
  read_pads(entry, node);
  for (int i = 0; i < 2; ++i) {
    if (2 * node.pads[i] > node.kernel[i]) {
      fail("expected ", node.name, " to pad by at most half its window, got ", node.pads[i], " of ", node.kernel[i]);
    }
  }
  const Json *ceil = entry.find("ceil"), *count = entry.find("count_pads"), *divisor = entry.find("divisor");
  if (count != nullptr) node.count_pads = count->boolean("count_pads");
  if (divisor != nullptr) node.divisor = divisor->integer("divisor", 1, INT32_MAX);
  const bool up = ceil != nullptr && ceil->boolean("ceil");
  node.shape.height = side(node, node.shape.height, 0, up);
  node.shape.width = side(node, node.shape.width, 1, up);
}

void GraphReader::adaptive_pool(const Json& entry, Node& node) {
  int64_t size[2] = {1, 1};
  read_pair(entry, "size", size, 1);
  node.shape.height = size[0];
  node.shape.width = size[1];
}

void GraphReader::reshape(const Json& entry, Node& node) {
  node.op = Op::reshape;
  node.shape = shape_of(entry.at("dims"));
  check_size(node);
  if (node.shape.size() != input(node).size()) {
    fail("expected ", node.name, " to keep ", input(node).size(), " numbers, got ", node.shape.size());
  }
}

void GraphReader::slice(const Json& entry, Node& node) {
  node.op = Op::slice;
  const int64_t channels = node.shape.channels;
  node.first = entry.at("first").integer("first", 0, channels - 1);
  node.shape.channels = entry.at("count").integer("count", 1, channels - node.first);
}

void GraphReader::pad(const Json& entry, Node& node) {
  node.op = Op::pad;
  read_pads(entry, node, -kMostSide);
  if (const Json* value = entry.find("value")) node.value = pad_value(*value);
  node.shape.height += node.pads[0] + node.pads[2];
  node.shape.width += node.pads[1] + node.pads[3];
}

void GraphReader::constant(const Json& entry, Node& node) {
  node.op = Op::constant;
  node.shape = shape_of(entry.at("dims"));
  check_size(node);
  node.numbers = file_.floats(entry.at("tensor").text("a tensor"), node.shape.size());
}

}  // namespace hiddennet::runtime
