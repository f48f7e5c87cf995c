// quantize_codes_cpu.cpp: ranges, codes and the threshold on a CPU: one pass over memory each.
#include <algorithm>
#include <vector>

#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "quantize_codes.h"
#include "transpose_tile.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kChunk = 1 << 14;                        // elements: what one thread takes at a time
constexpr int64_t kTileChannels = 16, kTilePixels = 1024;  // of codes that change places
constexpr int64_t kTile = 1 << 10;                         // of them widened to float32 at a time where they are not

HN_INLINE void max_body(const float* x, int64_t n, uint32_t* max) {
  // as signed integers, which AVX2 and SSE compare alike; magnitudes have no sign bit
  int32_t most = int32_t(*max);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t m = int32_t(magnitude_bits(x[i]));
    most = m > most ? m : most;
  }
  *max = uint32_t(most);
}
HN_DISPATCH(max_of, max_body)

template <class T, bool kOneBit>
HN_INLINE void codes_of(const CodeGrid* grid, const float* __restrict__ x, int64_t n, T* __restrict__ codes) {
  CodeGrid g = *grid;
  g.one_bit = kOneBit;
  for (int64_t i = 0; i < n; ++i) codes[i] = T(code_of(g, x[i]));
}

template <class T>
HN_INLINE void codes_body(const CodeGrid* g, const float* x, int64_t n, T* codes) {
  if (g->one_bit) {
    codes_of<T, true>(g, x, n, codes);
  } else {
    codes_of<T, false>(g, x, n, codes);
  }
}
HN_DISPATCH(codes_uint8, codes_body<uint8_t>)
HN_DISPATCH(codes_int8, codes_body<int8_t>)
HN_DISPATCH(codes_int16, codes_body<int16_t>)
HN_DISPATCH(codes_int32, codes_body<int32_t>)

HN_INLINE void threshold_body(float* __restrict__ g, const float* __restrict__ exact, int64_t n, float threshold,
                              bool sign) {
  if (exact == nullptr && !sign) {
    for (int64_t i = 0; i < n; ++i) g[i] = thresholded(g[i], 0.0f, threshold, false);
  } else if (exact == nullptr) {
    for (int64_t i = 0; i < n; ++i) g[i] = thresholded(g[i], 0.0f, threshold, true);
  } else {
    for (int64_t i = 0; i < n; ++i) g[i] = thresholded(g[i], exact[i], threshold, sign);
  }
}
HN_DISPATCH(threshold_some, threshold_body)

// Calls f(values, first, count) for tiles of x as float32.
template <class F>
void each_tile(const void* x, Dtype dtype, int64_t begin, int64_t end, const F& f) {
  if (dtype == Dtype::kFloat32) return f(static_cast<const float*>(x) + begin, begin, end - begin);
  float tile[kTile];
  for (int64_t i = begin; i < end; i += kTile) {
    const int64_t n = std::min(kTile, end - i);
    for (int64_t e = 0; e < n; ++e) tile[e] = load_as_float(x, dtype, i + e);
    f(static_cast<const float*>(tile), i, n);
  }
}

void write_codes(const CodeGrid& g, const float* x, int64_t n, CodeType type, void* codes, int64_t first) {
  switch (type) {
    case CodeType::kUint8: return codes_uint8(&g, x, n, static_cast<uint8_t*>(codes) + first);
    case CodeType::kInt8: return codes_int8(&g, x, n, static_cast<int8_t*>(codes) + first);
    case CodeType::kInt16: return codes_int16(&g, x, n, static_cast<int16_t*>(codes) + first);
    case CodeType::kInt32: return codes_int32(&g, x, n, static_cast<int32_t*>(codes) + first);
  }
}

// A tile of up to kTileChannels channels by kTilePixels pixels is quantised near the core as it lies, in runs long enough
// for the prefetcher, and turned on the way out.
template <class T>
void turned_codes(const QuantizeCodesParams& p, const CodeGrid& g) {
  const int64_t image = p.channels * p.pixels, runs = (p.pixels + kTilePixels - 1) / kTilePixels;
  const int64_t pixels = std::min(p.pixels, kTilePixels);
  parallel_for(0, p.n / image * runs, std::max<int64_t>(1, kChunk / (p.channels * pixels)),
               [&](int64_t begin, int64_t end) {
                 std::vector<T> tile(size_t(std::min(p.channels, kTileChannels) * pixels));
                 for (int64_t b = begin; b < end; ++b) {
                   const int64_t start = b / runs * image, p0 = b % runs * kTilePixels;
                   const int64_t wide = std::min(kTilePixels, p.pixels - p0);
                   for (int64_t c0 = 0; c0 < p.channels; c0 += kTileChannels) {
                     const int64_t high = std::min(kTileChannels, p.channels - c0);
                     const int64_t rows = wide == p.pixels ? high : 1;  // that follow each other in memory
                     for (int64_t c = 0; c < high; c += rows) {
                       const int64_t first = start + (c0 + c) * p.pixels + p0;
                       each_tile(p.x, p.dtype, first, first + rows * wide, [&](const float* x, int64_t at, int64_t n) {
                         write_codes(g, x, n, p.type, tile.data(), c * wide + at - first);
                       });
                     }
                     T* const to = static_cast<T*>(p.codes) + start + p0 * p.channels + c0;
                     transpose_tile(tile.data(), high, wide, to, p.channels);
                   }
                 }
               });
}

}  // namespace

void code_range(const CodeRangeParams& p) {
  // parts of a sample: each thread's largest of a part meets the others' in `work` afterwards, in any order
  const int64_t parts = std::max<int64_t>(1, (p.size + kChunk - 1) / kChunk);
  std::fill_n(p.work, p.samples, 0u);
  parallel_for(
      0, p.samples * parts, std::max<int64_t>(1, kChunk / std::max<int64_t>(1, p.size)),
      [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end;) {
          const int64_t sample = at / parts, stop = std::min(end, (sample + 1) * parts);
          const int64_t first = sample * p.size + (at - sample * parts) * kChunk;
          const int64_t last = sample * p.size + std::min(p.size, (stop - sample * parts) * kChunk);
          uint32_t most = 0;
          each_tile(p.x, p.dtype, first, last, [&](const float* x, int64_t, int64_t n) { max_of(x, n, &most); });
          uint32_t seen = __atomic_load_n(p.work + sample, __ATOMIC_RELAXED);
          while (most > seen &&
                 !__atomic_compare_exchange_n(p.work + sample, &seen, most, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
          }
          at = stop;
        }
      });
  double sum = 0.0;
  for (int64_t s = 0; s < p.samples; ++s) sum += double(bits_float(p.work[s]));
  *p.maximum = float(sum / double(p.samples));
}

void quantize_codes(const QuantizeCodesParams& p) {
  const CodeGrid g = code_grid(*p.maximum, p.bits, p.is_signed);
  *p.delta = g.delta;
  if (p.pixels > 0) {
    switch (p.type) {
      case CodeType::kUint8: return turned_codes<uint8_t>(p, g);
      case CodeType::kInt8: return turned_codes<int8_t>(p, g);
      case CodeType::kInt16: return turned_codes<int16_t>(p, g);
      case CodeType::kInt32: return turned_codes<int32_t>(p, g);
    }
  }
  parallel_for(0, p.n, kChunk, [&](int64_t begin, int64_t end) {
    each_tile(p.x, p.dtype, begin, end,
              [&](const float* x, int64_t first, int64_t n) { write_codes(g, x, n, p.type, p.codes, first); });
  });
}

void threshold_gradient(const ThresholdParams& p) {
  const float threshold = threshold_of(p);
  parallel_for(0, p.n, kChunk, [&](int64_t begin, int64_t end) {
    threshold_some(p.grad + begin, p.exact == nullptr ? nullptr : p.exact + begin, end - begin, threshold, p.sign);
  });
}

}  // namespace cpu
}  // namespace hn
