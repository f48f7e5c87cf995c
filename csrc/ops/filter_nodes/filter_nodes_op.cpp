// filter_nodes_op.cpp: check and launch, for torch.
#include "../../base/backend.h"
#include "../../base/maps.h"
#include "filter_nodes.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "filter_nodes_";

const float* row_of(const char* name, const Tensor& t, const Sizes& want, const Tensor& x) {
  check_type(kOp, name, t, ScalarType::Float);
  HN_CHECK(sizes_of(t) == want && t.is_contiguous(), kOp, ": expected ", name, " contiguous, of x's ", want[0],
           " nodes");
  check_same_device(kOp, name, t, x);
  return static_cast<const float*>(t.data_ptr());
}

}  // namespace

void filter_nodes_op(const Tensor& out, const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& taps,
                     int64_t stride) {
  HN_RANGE("filter_nodes_");
  check_maps(kOp, "x", x);
  check_maps(kOp, "out", out);
  check_same_device(kOp, "out", out, x);
  HN_CHECK(stride >= 1 && stride <= kMaxElements, kOp, ": expected a stride of at least 1, got ", stride);
  const int64_t nodes = x.size(1), height = x.size(2), width = x.size(3);
  const auto side = [&](int64_t n) { return n == 0 ? 0 : (n - 1) / stride + 1; };
  const Sizes want{x.size(0), nodes, side(height), side(width)};
  HN_CHECK(sizes_of(out) == want, kOp, ": expected out of x's images and nodes and ", want[2], " x ", want[3],
           " pixels");
  FilterNodesParams p = {};
  p.x = static_cast<const float*>(x.data_ptr());
  p.y = static_cast<float*>(out.data_ptr());
  p.scale = row_of("scale", scale, {nodes}, x);
  p.shift = row_of("shift", shift, {nodes}, x);
  p.taps = row_of("taps", taps, {nodes, 3, 3}, x);
  p.x_image = image_of(x);
  p.y_image = image_of(out);
  if (out.numel() == 0) return;
  p.images = int32_t(x.size(0));
  p.nodes = int32_t(nodes);
  p.height = int32_t(height);
  p.width = int32_t(width);
  p.out_height = int32_t(want[2]);
  p.out_width = int32_t(want[3]);
  p.stride = int32_t(stride);
  HN_CHECK(maps_apart({p.x, x.size(0), nodes * height * width, p.x_image},
                      {p.y, x.size(0), nodes * want[2] * want[3], p.y_image}),
           kOp, ": expected out apart from x, got maps that overlap; give it channels of its own");
  Guard(x).run(kOp, &filter_nodes, p);
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("filter_nodes_", TORCH_BOX(&hn::HN_BACKEND::filter_nodes_op));
}
