// wired_sum_cpu.cpp: the sum on a CPU: tiles of pixels, whose sums stay in registers, by blocks of destinations.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "../../base/parallel.h"
#include "wired_tile.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kGrain = int64_t(1) << 16;  // multiply-adds that are worth a thread, about
constexpr int32_t kRowBlock = 32;             // destinations of a task
constexpr int32_t kSmallMap = 128;            // pixels: smaller maps of several images are packed side by side
constexpr int32_t kLine = 16;                 // floats of a cache line

// n pixels in `tiles` parts of whole vectors, as equal as they can be.
struct Cut {
  int32_t pixels, vectors, tiles, lanes;

  int32_t begin(int32_t tile) const { return std::min(pixels, int32_t(int64_t(vectors) * tile / tiles) * lanes); }
};

Cut cut_of(const WiredMachine& m, int32_t pixels) {
  const int32_t vectors = m.vectors_of(pixels);
  return {pixels, vectors, (vectors + m.vectors - 1) / m.vectors, m.lanes};
}

int32_t row_blocks(const WiredSumParams& p) { return (p.edges.n_destinations + kRowBlock - 1) / kRowBlock; }

// Tasks that are worth a thread when a task has `pixels` pixels.
int64_t grain_of(const WiredSumParams& p, int32_t pixels) {
  const Edges& g = p.edges;
  const int64_t edges = g.starts[g.n_destinations] - g.starts[0];
  const int64_t work = (edges + g.n_destinations) * int64_t(pixels) / row_blocks(p);
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(work, 1));
}

// A tile of one image's map is read where it lies.
void sum_in_place(const WiredSumParams& p, const WiredMachine& m) {
  const Cut cut = cut_of(m, p.pixels);
  const int32_t blocks = row_blocks(p);
  parallel_for(0, int64_t(p.images) * cut.tiles * blocks, grain_of(p, p.pixels / cut.tiles),
               [&](int64_t begin, int64_t end) {
                 for (int64_t task = begin; task < end; ++task) {
                   const int32_t first = int32_t(task % blocks) * kRowBlock, tile = int32_t(task / blocks % cut.tiles);
                   const int64_t image = task / blocks / cut.tiles;
                   const int32_t pixel = cut.begin(tile), count = cut.begin(tile + 1) - pixel;
                   WiredTile t = {};
                   t.x = p.x + image * p.x_image + pixel;
                   t.y = p.y + image * p.y_image + int64_t(first) * p.pixels + pixel;
                   t.x_map = t.y_map = p.pixels;
                   t.starts = p.edges.starts + first;
                   t.rows = std::min(kRowBlock, p.edges.n_destinations - first);
                   t.count = count;
                   t.accumulate = p.accumulate;
                   m.function(p.edges, count)(p.edges, t);
                 }
               });
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Small maps of a group of images are packed side by side, so that vectors are full and an edge is read once for many.
class PackedSum {
 public:
  PackedSum(const WiredSumParams& p, const WiredMachine& m) : p_(p), m_(m) {
    const int32_t most = std::max(1, std::min(p.images, m.most() / p.pixels));
    groups_ = (p.images + most - 1) / most;
    group_ = (p.images + groups_ - 1) / groups_;
    width_ = (group_ * p.pixels + kLine - 1) / kLine * kLine;
    const size_t bytes = size_t(groups_) * p.edges.n_sources * width_ * sizeof(float);
    packed_.reset(static_cast<float*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64))));
    if (packed_ == nullptr) throw std::bad_alloc();
  }

  void run() {
    const int32_t sources = p_.edges.n_sources, blocks = row_blocks(p_);
    parallel_for(0, int64_t(groups_) * sources, std::max<int64_t>(1, kGrain / width_), [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) pack(int32_t(at / sources), int32_t(at % sources));
    });
    parallel_for(0, int64_t(groups_) * blocks, grain_of(p_, width_), [&](int64_t begin, int64_t end) {
      const std::unique_ptr<float[]> rows(new float[size_t(kRowBlock) * width_]);
      for (int64_t at = begin; at < end; ++at) multiply(int32_t(at / blocks), int32_t(at % blocks), rows.get());
    });
  }

 private:
  int32_t images(int32_t group) const { return std::min(group_, p_.images - group * group_); }

  float* of(int32_t group, int32_t source) const {
    return packed_.get() + (int64_t(group) * p_.edges.n_sources + source) * width_;
  }

  void pack(int32_t group, int32_t source) const {
    const float* from = p_.x + int64_t(group) * group_ * p_.x_image + int64_t(source) * p_.pixels;
    float* to = of(group, source);
    for (int32_t i = 0; i < images(group); ++i, from += p_.x_image, to += p_.pixels) std::copy_n(from, p_.pixels, to);
  }

  // Between the packed rows and y.
  template <bool kOut>
  void move(int32_t group, int32_t first, int32_t count, float* rows) const {
    for (int32_t i = 0; i < images(group); ++i) {
      float* y = p_.y + (int64_t(group) * group_ + i) * p_.y_image + int64_t(first) * p_.pixels;
      float* row = rows + int64_t(i) * p_.pixels;
      for (int32_t r = 0; r < count; ++r, y += p_.pixels, row += width_) {
        kOut ? std::copy_n(row, p_.pixels, y) : std::copy_n(y, p_.pixels, row);
      }
    }
  }

  void multiply(int32_t group, int32_t block, float* rows) const {
    const int32_t first = block * kRowBlock, count = std::min(kRowBlock, p_.edges.n_destinations - first);
    if (p_.accumulate) move<false>(group, first, count, rows);
    const int32_t pixels = images(group) * p_.pixels;
    const Cut cut = cut_of(m_, pixels);
    for (int32_t tile = 0; tile < cut.tiles; ++tile) {
      const int32_t pixel = cut.begin(tile), n = cut.begin(tile + 1) - pixel;
      WiredTile t = {};
      t.x = of(group, 0) + pixel;
      t.y = rows + pixel;
      t.x_map = t.y_map = width_;
      t.starts = p_.edges.starts + first;
      t.rows = count;
      t.count = n;
      t.accumulate = p_.accumulate;
      m_.function(p_.edges, n)(p_.edges, t);
    }
    move<true>(group, first, count, rows);
  }

  const WiredSumParams& p_;
  const WiredMachine& m_;
  int32_t groups_, group_, width_;
  std::unique_ptr<float, Free> packed_;
};

#if defined(HN_X86)

// One bit for each of 16 weights that is not 0.
HN_TARGET_AVX2 inline uint32_t edges_of_16(const float* w) {
  const __m256 zero = _mm256_setzero_ps();
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(w), zero, _CMP_NEQ_UQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(w + 8), zero, _CMP_NEQ_UQ));
  return uint32_t(low) | uint32_t(high) << 8;
}

#endif

// Calls found(source) for each edge of a row, ascending.
template <class F>
HN_INLINE void each_edge(const float* row, int32_t begin, int32_t n, F found) {
  for (int32_t s = begin; s < n; ++s) {
    if (row[s] != 0.0f) found(s);
  }
}

int32_t count_scalar(const float* row, int32_t begin, int32_t n) {
  int32_t count = 0;
  each_edge(row, begin, n, [&](int32_t) { ++count; });
  return count;
}

// Writes at most `room` edges.
void fill_scalar(const float* row, int32_t begin, int32_t n, int32_t room, int32_t* sources, float* values) {
  each_edge(row, begin, n, [&](int32_t s) {
    if (room-- <= 0) return;
    *sources++ = s;
    *values++ = row[s];
  });
}

#if defined(HN_X86)

HN_TARGET_AVX2 int32_t count_avx2(const float* row, int32_t n) {
  int32_t count = 0, s = 0;
  for (; s + 16 <= n; s += 16) count += __builtin_popcount(edges_of_16(row + s));
  return count + count_scalar(row, s, n);
}

HN_TARGET_AVX2 void fill_avx2(const float* row, int32_t n, int32_t room, int32_t* sources, float* values) {
  int32_t s = 0;
  for (; s + 16 <= n; s += 16) {
    for (uint32_t bits = edges_of_16(row + s); bits != 0; bits &= bits - 1) {
      if (room-- <= 0) return;
      const int32_t at = s + __builtin_ctz(bits);
      *sources++ = at;
      *values++ = row[at];
    }
  }
  fill_scalar(row, s, n, room, sources, values);
}

#endif

int32_t count_row(const float* row, int32_t n) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return count_avx2(row, n);
#endif
  return count_scalar(row, 0, n);
}

void fill_row(const float* row, int32_t n, int32_t room, int32_t* sources, float* values) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return fill_avx2(row, n, room, sources, values);
#endif
  fill_scalar(row, 0, n, room, sources, values);
}

int64_t rows_grain(int32_t n_sources) { return std::max<int64_t>(1, kGrain / std::max(1, n_sources)); }

}  // namespace

void wired_sum(const WiredSumParams& p) {
  if (p.images == 0 || p.pixels == 0 || p.edges.n_destinations == 0) return;
  const WiredMachine m = wired_machine();
  if (p.images > 1 && p.pixels < kSmallMap && 2 * p.pixels <= m.most()) {
    PackedSum(p, m).run();
  } else {
    sum_in_place(p, m);
  }
}

void edge_starts(const EdgeStartsParams& p) {
  p.starts[0] = 0;
  parallel_for(0, p.n_destinations, rows_grain(p.n_sources), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) p.starts[r + 1] = count_row(p.weight + r * p.row, p.n_sources);
  });
  for (int32_t r = 0; r < p.n_destinations; ++r) p.starts[r + 1] += p.starts[r];
}

void pack_edges(const PackEdgesParams& p) {
  std::fill(p.sources, p.sources + p.n_edges, 0);
  std::fill(p.values, p.values + p.n_edges, 0.0f);
  parallel_for(0, p.n_destinations, rows_grain(p.n_sources), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int32_t first = std::min(p.starts[r], p.n_edges), last = std::min(p.starts[r + 1], p.n_edges);
      fill_row(p.weight + r * p.row, p.n_sources, last - first, p.sources + first, p.values + first);
    }
  });
}

}  // namespace cpu
}  // namespace hn
