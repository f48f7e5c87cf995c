// wired_sum.h: the sum over the edges of a wiring, a sparse product over channels, and the lists of edges it reads.
//
// For Discovering Neural Wirings (arXiv 1906.00586). With destination v, image n, pixel p and the edges e of v in order:
//   y[n][v][p] = (accumulate ? y[n][v][p] : 0), then y = fma(values[e], x[n][sources[e]][p], y) for each e
// The order is that of the list and each step is one fused multiply-add, so all backends agree to the bit.
//
// Edges lie by destination: those of v are [starts[v], starts[v + 1]) of sources and values. starts may be a part of a
// longer one (a range of destinations of a larger wiring), so that starts[0] need not be 0. The transposed list, by
// source, makes the input gradient by the same sum.
#pragma once
#include <cstdint>

#include "../../base/macros.h"

namespace hn {

struct Edges {
  const int32_t* starts;   // [n_destinations + 1], not descending, in [0, n_edges]
  const int32_t* sources;  // [n_edges], in [0, n_sources)
  const float* values;     // [n_edges]
  int32_t n_edges, n_destinations, n_sources;
  const uint16_t* narrow = nullptr;  // the sources in 2 bytes each, where `sources` is null
};

// The sources as one of the two types.
template <class Source>
HN_HD const Source* sources_of(const Edges& g);
template <>
HN_HD const int32_t* sources_of<int32_t>(const Edges& g) {
  return g.sources;
}
template <>
HN_HD const uint16_t* sources_of<uint16_t>(const Edges& g) {
  return g.narrow;
}

struct WiredSumParams {
  Edges edges;
  const float* x;            // [images, n_sources, pixels]: a map is contiguous, maps lie side by side
  float* y;                  // [images, n_destinations, pixels], apart from x
  int64_t x_image, y_image;  // elements from an image to the next one: more than its maps in a wider buffer
  int32_t images, pixels;
  bool accumulate;
};

// The lists of a dense weight: an edge for each weight that is not 0 (NaN is not), sources ascending.
struct EdgeStartsParams {
  const float* weight;  // [n_destinations, n_sources], rows `row` elements apart
  int64_t row;
  int32_t n_destinations, n_sources;
  int32_t* starts;  // [n_destinations + 1]
};

struct PackEdgesParams {
  const float* weight;
  int64_t row;
  int32_t n_destinations, n_sources;
  const int32_t* starts;
  int32_t n_edges;   // room in both; edges that find none are left out
  int32_t* sources;  // [n_edges]; edges from source 0 of weight 0 where there are none
  float* values;
};

namespace cpu {
void wired_sum(const WiredSumParams& p);
void edge_starts(const EdgeStartsParams& p);
void pack_edges(const PackEdgesParams& p);
}  // namespace cpu

namespace cuda {
int wired_sum(const WiredSumParams& p, void* stream);
int edge_starts(const EdgeStartsParams& p, void* stream);
int pack_edges(const PackEdgesParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
