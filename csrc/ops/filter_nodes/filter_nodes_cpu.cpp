// filter_nodes_cpu.cpp: the nodes' filter on a CPU, map by map: three rectified rows in the first level, a row of outputs.
#include <vector>

#include "../../base/parallel.h"
#include "filter_nodes.h"
#include "filter_rows.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kGrain = int64_t(1) << 15;  // output pixels that are worth a thread, about

// Filters maps of one size.
class MapFilter {
 public:
  MapFilter(const FilterNodesParams& p, const RowLoops& loops) : p_(p), loops_(loops) {
    const int32_t inside = p.width + 2 + 2 * kRowLanes, outside = p.out_width + 2 * kRowLanes;
    plane_ = p.stride == 1 ? inside : outside;
    row_ = p.stride == 1 ? plane_ : 3 * plane_;
    for (int v = 0; v < 3; ++v) begin_[v] = p.stride == 1 ? v : (p.stride == 2 && v == 2 ? 1 : v * plane_);
    scratch_.assign(size_t(4) * row_ + inside, 0.0f);
  }

  void run(int64_t image, int32_t node) {
    const float* x = p_.x + image * p_.x_image + int64_t(node) * p_.height * p_.width;
    float* y = p_.y + image * p_.y_image + int64_t(node) * p_.out_height * p_.out_width;
    int32_t ready = -1;  // the last row that is rectified
    for (int32_t i = 0; i < p_.out_height; ++i, y += p_.out_width) {
      const int64_t above = int64_t(i) * p_.stride - 1;
      NineRows rows;
      for (int u = 0; u < 3; ++u) {
        const int64_t a = above + u;
        const bool inside = a >= 0 && a < p_.height;
        if (inside && a > ready) {
          rectify(x + a * p_.width, node, row(int32_t(a % 3)));
          ready = int32_t(a);
        }
        const float* from = row(inside ? int32_t(a % 3) : 3);  // the fourth row is zeros
        for (int v = 0; v < 3; ++v) rows.from[3 * u + v] = from + begin_[v];
      }
      loops_.sum_row(rows, p_.taps + int64_t(node) * 9, p_.out_width, y);
    }
  }

 private:
  float* row(int32_t slot) { return scratch_.data() + int64_t(slot) * row_; }

  // A row between zeros; with a stride three rows, one for each column of taps; with a stride of 2 the third is the first
  // without its first.
  void rectify(const float* x, int32_t node, float* to) {
    float* padded = p_.stride == 1 ? to : row(4);
    loops_.rectify(x, p_.scale[node], p_.shift[node], p_.width, padded + 1);
    if (p_.stride == 1) return;
    for (int v = 0; v < (p_.stride == 2 ? 2 : 3); ++v) {
      loops_.every(padded, v, p_.stride, p_.out_width + (p_.stride == 2), to + v * plane_);
    }
  }

  const FilterNodesParams& p_;
  const RowLoops& loops_;
  int32_t plane_, row_, begin_[3];  // of the terms of a column of taps
  std::vector<float> scratch_;
};

}  // namespace

void filter_nodes(const FilterNodesParams& p) {
  const int64_t pixels = int64_t(p.out_height) * p.out_width;
  if (pixels == 0) return;
  const RowLoops loops = row_loops();
  parallel_for(0, int64_t(p.images) * p.nodes, kGrain / pixels + 1, [&](int64_t begin, int64_t end) {
    MapFilter filter(p, loops);
    for (int64_t at = begin; at < end; ++at) filter.run(at / p.nodes, int32_t(at % p.nodes));
  });
}

}  // namespace cpu
}  // namespace hn
