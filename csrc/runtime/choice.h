// Which plan each convolution takes and in which layout each other node computes, so that the whole takes least time.
#pragma once

#include <string>
#include <vector>

#include "graph.h"
#include "layout.h"

namespace hiddennet::runtime {

struct Option {
  std::string plan;  // of a convolution; else empty
  Layout input, output;
  double seconds;
};

// One option a node, by index. options: of each node at least one; an input and what is read in the end have one layout.
std::vector<int> choose(const Graph& graph, int64_t batch, const std::vector<std::vector<Option>>& options, Layout last,
                        int threads);

// The layouts in which a node that is no convolution can compute.
std::vector<Layout> layouts_of(const Graph& graph, const Node& node, int64_t batch, bool bf16);

// Seconds that such a node takes, about.
double seconds_of(const Graph& graph, const Node& node, int64_t batch, Layout layout, int threads);

// Whether a reshape leaves every number in its place whatever the layout.
bool keeps_places(const Shape& from, const Shape& to);

// In which layout node n reads its i-th input, when it computes by that option.
Layout read_layout(const Node& node, size_t i, const Option& option);

}  // namespace hiddennet::runtime
