// wired_levels_op.cpp: a small graph, level by level, for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "wired_levels.h"

namespace hn {
namespace cpu {
namespace {

const float* floats(const char* op, const char* name, const Tensor& t, const Sizes& want, const Tensor& like) {
  check_type(op, name, t, ScalarType::Float);
  HN_CHECK(sizes_of(t) == want, op, ": expected ", name, " of another shape for these levels and images");
  check_dense(op, name, t, false);
  check_same_device(op, name, t, like);
  return static_cast<const float*>(t.data_ptr());
}

// Memory for the op's own use, which it writes line by line.
float* lines(const char* op, const char* name, const Tensor& t, int64_t n, const Tensor& like) {
  floats(op, name, t, {n}, like);
  HN_CHECK(reinterpret_cast<uintptr_t>(t.data_ptr()) % 64 == 0, op, ": expected ", name, " to begin at 64 bytes");
  return static_cast<float*>(t.data_ptr());
}

std::vector<WiredLevel> levels_of(const char* op, const Sizes& numbers, int64_t nodes) {
  constexpr int64_t kEach = 5;
  HN_CHECK(numbers.size() % kEach == 0 && numbers.size() >= 2 * size_t(kEach), op,
           ": expected five numbers for each of at least two levels, got ", numbers.size(), " numbers");
  std::vector<WiredLevel> levels;
  int64_t slots = 0;  // of the levels before
  for (size_t i = 0; i < numbers.size(); i += size_t(kEach)) {
    const int64_t row = numbers[i], rows = numbers[i + 1], column = numbers[i + 2], columns = numbers[i + 3];
    const int64_t from = numbers[i + 4];
    HN_CHECK(row >= 0 && rows >= 1 && row <= nodes && rows <= nodes - row && column >= 0 && columns >= 0 &&
                 column <= nodes && columns <= nodes - column,
             op, ": expected levels of the weight's ", nodes, " rows and columns");
    HN_CHECK(from >= 0 && from <= slots && columns <= slots - from && (i != 0 || columns == 0), op,
             ": expected levels that read what levels before them send");
    levels.push_back({int32_t(row), int32_t(rows), int32_t(column), int32_t(columns), int32_t(from)});
    slots += rows;
    HN_CHECK(slots <= kMaxElements / kMapPixels, op, ": expected fewer nodes in all levels");
  }
  return levels;
}

// Checks all but the maps.
WiredGraph graph_of(const char* op, const Tensor& start, const Tensor& weight, const Tensor& scale, const Tensor& shift,
                    const Tensor& taps, const std::vector<WiredLevel>& levels, double eps, bool first_norm,
                    bool lateral) {
  WiredGraph g = {};
  const int64_t nodes = weight.size(0);
  HN_CHECK(start.dim() == 4 && start.size(0) <= kMaxElements, op, ": expected start of 4 dimensions, got ",
           start.dim());
  g.weight = floats(op, "weight", weight, {nodes, nodes}, start);
  g.scale = floats(op, "scale", scale, {nodes}, start);
  g.shift = floats(op, "shift", shift, {nodes}, start);
  g.taps = floats(op, "taps", taps, {nodes, 1, 3, 3}, start);
  g.levels = levels.data();
  g.n_levels = int32_t(levels.size());
  g.nodes = int32_t(nodes);
  g.images = int32_t(start.size(0));
  g.eps = float(eps);
  g.first_norm = first_norm;
  g.lateral = lateral;
  HN_CHECK(!lateral || g.n_levels > 2, op, ": expected at least three levels where the last but one is added");
  return g;
}

Sizes maps_of(const WiredGraph& g, const WiredLevel& level) { return {g.images, level.rows, kMapSide, kMapSide}; }

}  // namespace

Tensor wired_levels_op(const Tensor& start, const Tensor& weight, const Tensor& scale, const Tensor& shift,
                       const Tensor& taps, const Sizes& numbers, double eps, bool first_norm, bool lateral,
                       const OptionalTensor& kept) {
  constexpr const char* op = "wired_levels";
  HN_RANGE(op);
  check_type(op, "weight", weight, ScalarType::Float);
  HN_CHECK(weight.dim() == 2, op, ": expected a weight of 2 dimensions, got ", weight.dim());
  const std::vector<WiredLevel> levels = levels_of(op, numbers, weight.size(0));
  WiredLevelsParams p = {};
  p.graph = graph_of(op, start, weight, scale, shift, taps, levels, eps, first_norm, lateral);
  p.start = floats(op, "start", start, maps_of(p.graph, levels.front()), start);
  if (kept.has_value() && kept->defined()) {
    const int64_t slots = p.graph.slots(), maps = p.graph.map_room(int32_t(slots));
    p.sent = lines(op, "kept", *kept, 2 * maps + p.graph.image_room() * slots, start);
    p.normal = p.sent + maps;
    p.rates = p.normal + maps;
  }
  Tensor out = empty_on(maps_of(p.graph, levels.back()), ScalarType::Float, start);
  p.out = static_cast<float*>(out.data_ptr());
  wired_levels(p);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> wired_levels_backward_op(
    const Tensor& gradient, const Tensor& start, const Tensor& weight, const Tensor& scale, const Tensor& shift,
    const Tensor& taps, const Sizes& numbers, double eps, bool first_norm, bool lateral, const Tensor& kept,
    const Tensor& scratch, bool want_weight) {
  constexpr const char* op = "wired_levels_backward";
  HN_RANGE(op);
  check_type(op, "weight", weight, ScalarType::Float);
  HN_CHECK(weight.dim() == 2, op, ": expected a weight of 2 dimensions, got ", weight.dim());
  const std::vector<WiredLevel> levels = levels_of(op, numbers, weight.size(0));
  WiredLevelsBackwardParams p = {};
  p.graph = graph_of(op, start, weight, scale, shift, taps, levels, eps, first_norm, lateral);
  floats(op, "start", start, maps_of(p.graph, levels.front()), start);
  p.gradient = floats(op, "gradient", gradient, maps_of(p.graph, levels.back()), start);
  const int64_t slots = p.graph.slots(), maps = p.graph.map_room(int32_t(slots));
  p.sent = lines(op, "kept", kept, 2 * maps + p.graph.image_room() * slots, start);
  p.normal = p.sent + maps;
  p.rates = p.normal + maps;
  const int64_t received = p.graph.map_room(int32_t(slots) + levels.back().rows);
  p.received = lines(op, "scratch", scratch, received + p.graph.image_room() * p.graph.nodes * kNodeNumbers, start);
  p.numbers = p.received + received;
  const auto like = [&](const Tensor& t) { return empty_on(sizes_of(t), ScalarType::Float, start); };
  Tensor d_start = like(start), d_scale = like(scale), d_shift = like(shift), d_taps = like(taps);
  Tensor d_weight = want_weight ? like(weight) : empty_on({0}, ScalarType::Float, start);
  p.start = static_cast<float*>(d_start.data_ptr());
  p.weight = want_weight ? static_cast<float*>(d_weight.data_ptr()) : nullptr;
  p.scale = static_cast<float*>(d_scale.data_ptr());
  p.shift = static_cast<float*>(d_shift.data_ptr());
  p.taps = static_cast<float*>(d_taps.data_ptr());
  wired_levels_backward(p);
  return {d_start, d_weight, d_scale, d_shift, d_taps};
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("wired_levels", TORCH_BOX(&hn::cpu::wired_levels_op));
  m.impl("wired_levels_backward", TORCH_BOX(&hn::cpu::wired_levels_backward_op));
}
#endif
