// wired_sum_op.cpp: the sum over a wiring's edges, and the lists of its edges, for torch.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/maps.h"
#include "wired_sum.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr int64_t kLargest = 0x7fffffff;

void* list_of(const char* op, const char* name, const Tensor& t, ScalarType type, const Tensor& like) {
  check_type(op, name, t, type);
  HN_CHECK(t.dim() == 1 && t.is_contiguous(), op, ": expected ", name, " contiguous and of 1 dimension");
  HN_CHECK(t.numel() < kLargest, op, ": expected fewer than 2^31 - 1 ", name, ", got ", t.numel());
  check_same_device(op, name, t, like);
  return t.data_ptr();
}

#if !defined(HN_CUDA)

// On a CPU the lists are looked at; the CUDA kernels guard their own accesses, since nothing may wait for them here.
void check_starts(const char* op, const int32_t* starts, int32_t n_destinations, int32_t n_edges) {
  bool good = starts[0] >= 0;
  for (int32_t v = 0; v < n_destinations; ++v) good &= starts[v + 1] >= starts[v];
  HN_CHECK(good && starts[n_destinations] <= n_edges, op, ": expected starts that do not descend, in [0, ", n_edges,
           "]");
}

template <class Source>
void check_sources(const char* op, const Edges& g) {
  const Source* const sources = sources_of<Source>(g);
  uint32_t most = 0;  // a negative source is the largest
  for (int32_t e = g.starts[0]; e < g.starts[g.n_destinations]; ++e) most = std::max(most, uint32_t(sources[e]));
  HN_CHECK(g.starts[0] == g.starts[g.n_destinations] || most < uint32_t(g.n_sources), op, ": expected sources in [0, ",
           g.n_sources, "), got ", int32_t(most), "; the edges are of another wiring");
}

#endif

Edges edges_of(const char* op, const Tensor& starts, const Tensor& sources, const Tensor& values, const Tensor& x) {
  Edges g = {};
  g.starts = static_cast<const int32_t*>(list_of(op, "starts", starts, ScalarType::Int, x));
  if (sources.scalar_type() == ScalarType::UInt16) {
    g.narrow = static_cast<const uint16_t*>(list_of(op, "sources", sources, ScalarType::UInt16, x));
  } else {
    g.sources = static_cast<const int32_t*>(list_of(op, "sources", sources, ScalarType::Int, x));
  }
  g.values = static_cast<const float*>(list_of(op, "values", values, ScalarType::Float, x));
  HN_CHECK(starts.numel() > 0, op, ": expected starts of one element more than destinations, got none");
  HN_CHECK(sources.numel() == values.numel(), op, ": expected as many sources as values, got ", sources.numel(),
           " and ", values.numel());
  g.n_edges = int32_t(sources.numel());
  g.n_destinations = int32_t(starts.numel() - 1);
  g.n_sources = int32_t(x.size(1));
#if !defined(HN_CUDA)
  check_starts(op, g.starts, g.n_destinations, g.n_edges);
  g.sources == nullptr ? check_sources<uint16_t>(op, g) : check_sources<int32_t>(op, g);
#endif
  return g;
}

WiredSumParams params_of(const char* op, const Tensor& x, const Tensor& y, const Edges& edges, bool accumulate) {
  WiredSumParams p = {};
  p.edges = edges;
  p.x = static_cast<const float*>(x.data_ptr());
  p.y = static_cast<float*>(y.data_ptr());
  p.x_image = image_of(x);
  p.y_image = image_of(y);
  const int64_t pixels = x.size(2) * x.size(3);
  HN_CHECK(pixels <= kMaxElements && x.size(0) <= kMaxElements, op, ": expected fewer than 2^31 pixels and images");
  p.images = int32_t(x.size(0));
  p.pixels = int32_t(pixels);
  p.accumulate = accumulate;
  HN_CHECK(maps_apart({p.x, p.images, x.size(1) * pixels, p.x_image}, {p.y, p.images, y.size(1) * pixels, p.y_image}),
           op, ": expected out apart from x, got maps that overlap; give it channels of its own");
  return p;
}

void check_weight(const char* op, const Tensor& weight) {
  check_type(op, "weight", weight, ScalarType::Float);
  HN_CHECK(weight.dim() == 2, op, ": expected a weight of 2 dimensions, got ", weight.dim());
  HN_CHECK(weight.size(0) < kLargest && weight.size(1) < kLargest && weight.numel() <= kMaxElements, op,
           ": expected a weight of fewer than 2^31 elements");
  HN_CHECK(weight.size(1) <= 1 || weight.stride(1) == 1, op, ": expected a weight of contiguous rows");
}

}  // namespace

Tensor wired_sum_op(const Tensor& x, const Tensor& starts, const Tensor& sources, const Tensor& values) {
  HN_RANGE("wired_sum");
  constexpr const char* kOp = "wired_sum";
  check_maps(kOp, "x", x);
  const Edges edges = edges_of(kOp, starts, sources, values, x);
  const Sizes shape{x.size(0), edges.n_destinations, x.size(2), x.size(3)};
  layout_of(kOp, shape, false);  // fewer than 2^31 elements
  Tensor y = empty_on(shape, ScalarType::Float, x);
  Guard(x).run(kOp, &wired_sum, params_of(kOp, x, y, edges, false));
  return y;
}

void wired_sum_into_op(const Tensor& out, const Tensor& x, const Tensor& starts, const Tensor& sources,
                       const Tensor& values, bool accumulate) {
  HN_RANGE("wired_sum_");
  constexpr const char* kOp = "wired_sum_";
  check_maps(kOp, "x", x);
  check_maps(kOp, "out", out);
  check_same_device(kOp, "out", out, x);
  const Edges edges = edges_of(kOp, starts, sources, values, x);
  const Sizes want{x.size(0), edges.n_destinations, x.size(2), x.size(3)};
  HN_CHECK(sizes_of(out) == want, kOp, ": expected out of x's images and maps and ", want[1], " channels");
  Guard(x).run(kOp, &wired_sum, params_of(kOp, x, out, edges, accumulate));
}

Tensor edge_starts_op(const Tensor& weight) {
  HN_RANGE("edge_starts");
  constexpr const char* kOp = "edge_starts";
  check_weight(kOp, weight);
  Tensor starts = empty_on({weight.size(0) + 1}, ScalarType::Int, weight);
  Guard(weight).run(
      kOp, &edge_starts,
      EdgeStartsParams{static_cast<const float*>(weight.data_ptr()), weight.stride(0), int32_t(weight.size(0)),
                       int32_t(weight.size(1)), static_cast<int32_t*>(starts.data_ptr())});
  return starts;
}

std::tuple<Tensor, Tensor> pack_edges_op(const Tensor& weight, const Tensor& starts, int64_t n_edges) {
  HN_RANGE("pack_edges");
  constexpr const char* kOp = "pack_edges";
  check_weight(kOp, weight);
  list_of(kOp, "starts", starts, ScalarType::Int, weight);
  HN_CHECK(starts.numel() == weight.size(0) + 1, kOp, ": expected starts of ", weight.size(0) + 1, " elements, got ",
           starts.numel());
  HN_CHECK(n_edges >= 0 && n_edges <= weight.numel(), kOp, ": expected n_edges in [0, ", weight.numel(), "], got ",
           n_edges);
#if !defined(HN_CUDA)
  const int32_t rows = int32_t(weight.size(0));
  check_starts(kOp, static_cast<const int32_t*>(starts.data_ptr()), rows, int32_t(weight.numel()));
#endif
  Tensor sources = empty_on({n_edges}, ScalarType::Int, weight);
  Tensor values = empty_on({n_edges}, ScalarType::Float, weight);
  Guard(weight).run(
      kOp, &pack_edges,
      PackEdgesParams{static_cast<const float*>(weight.data_ptr()), weight.stride(0), int32_t(weight.size(0)),
                      int32_t(weight.size(1)), static_cast<const int32_t*>(starts.data_ptr()), int32_t(n_edges),
                      static_cast<int32_t*>(sources.data_ptr()), static_cast<float*>(values.data_ptr())});
  return {sources, values};
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("wired_sum", TORCH_BOX(&hn::HN_BACKEND::wired_sum_op));
  m.impl("wired_sum_", TORCH_BOX(&hn::HN_BACKEND::wired_sum_into_op));
  m.impl("edge_starts", TORCH_BOX(&hn::HN_BACKEND::edge_starts_op));
  m.impl("pack_edges", TORCH_BOX(&hn::HN_BACKEND::pack_edges_op));
}
